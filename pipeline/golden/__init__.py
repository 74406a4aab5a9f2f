"""The golden set: pictures that ship, and what each model is known to answer.

pictures   six photographs and some scenes, as images and crops
answers    what a model said of them before, and the refusal where it says something else now
"""
