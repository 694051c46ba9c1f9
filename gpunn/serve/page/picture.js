// Decode picture files.

const MOST_SIDE = 2048; // pixels of a side; a larger picture is scaled down

/** Decode a picture file; return its bitmap, and an empty canvas of its proportions. */
export async function decoded(file, options = {}) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error(`${file.name || "This"} is no picture that the browser can read: give a PNG or JPEG.`);
  }
  const factor = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  return { bitmap, canvas };
}
