// Requests to the server. An error is the server's own sentence. Addresses are relative, so that they keep the token and
// whatever prefix a portal puts before it.

async function answer(response) {
  const type = response.headers.get("content-type") ?? "";
  const body = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(body.error || `the viewer answered ${response.status}`);
  return body;
}

/** The JSON at `path`. */
export const get = async (path, signal) => answer(await fetch(path, { signal }));

const post = async (path, request) =>
  answer(
    await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
    }),
  );

/** Set or remove a mark; resolves to the mark as it is now. */
export const mark = (request) => post("api/mark", request);

/** Set a region's caption and label, or without a caption take its edit back; resolves to the edit as it is now. */
export const edit = (request) => post("api/edit", request);

/** Write the filter list of thresholds; resolves to where it is. */
export const choose = (thresholds) => post("api/choose", { thresholds });

/** Address of an image, or of its part in `box`: as stored, or at most `size` pixels large. */
export function imageUrl(side, image, size, box = null) {
  const query = new URLSearchParams({ ...(size && { side: size }), ...(box && { crop: box.join(",") }) }).toString();
  return `image/${side}/${encodeURIComponent(image.shard)}/${encodeURIComponent(image.key)}${query && `?${query}`}`;
}
