// Requests to the server. An error is the server's own sentence.

async function answer(response) {
  const type = response.headers.get("content-type") ?? "";
  const body = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(body.error || `the viewer answered ${response.status}`);
  return body;
}

/** The JSON at `path`. */
export const get = async (path, signal) => answer(await fetch(path, { signal }));

/** Set or remove a mark; resolves to the mark as it is now. */
export const mark = async (request) =>
  answer(
    await fetch("/api/mark", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
    }),
  );

/** Address of an image: as stored, or at most `side` pixels large. */
export const imageUrl = (side, image, size) =>
  `/image/${side}/${encodeURIComponent(image.shard)}/${encodeURIComponent(image.key)}${size ? `?side=${size}` : ""}`;
