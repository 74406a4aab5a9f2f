"""Procedural pictures whose truth is known: where everything is, what it is and how a caption says it.

    words    what an object can be, how captions name it, and how a caption is read back
    shapes   outlines of the shapes, and the textures that fill them
    layout   what a scene shows and where: drawn from the scene's own random numbers
    draw     layout -> pixels, exact boxes and masks, captions

A scene depends on (version, seed, split, index) and nothing else, so it can be drawn anywhere, alone, in any order.
"""
