// Compute with planes {data, height, width}, row by row, as NumPy does in gpunn's preparation of drawings.

export const plane = (height, width, data = new Float32Array(height * width)) => ({ data, height, width });

/** Round as Python and NumPy do, halves to even. */
export function rounded(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export const clipped = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return the quantile of numbers, linearly interpolated; 0 if there are none. */
export function quantile(values, share) {
  return quantileOfOwn(new Float64Array(values), share);
}

/** Return the quantile of numbers, and reorder them. */
export function quantileOfOwn(ordered, share) {
  if (!ordered.length) return 0;
  const place = share * (ordered.length - 1);
  const below = Math.floor(place);
  const low = selected(ordered, below);
  if (place === below) return low;
  let above = Infinity; // all after the place are at least as large
  for (let i = below + 1; i < ordered.length; i++) above = Math.min(above, ordered[i]);
  return low + (above - low) * (place - below);
}

/** Partition numbers around the one of rank `place`, and return it (quickselect, Hoare 1961). */
function selected(values, place) {
  let [first, last] = [0, values.length - 1];
  while (first < last) {
    const pivot = values[(first + last) >> 1];
    let [low, high] = [first, last];
    while (low <= high) {
      while (values[low] < pivot) low += 1;
      while (values[high] > pivot) high -= 1;
      if (low <= high) {
        const kept = values[low];
        values[low++] = values[high];
        values[high--] = kept;
      }
    }
    if (place <= high) last = high;
    else if (place >= low) first = low;
    else break;
  }
  return values[place];
}

export const median = (values) => quantile(values, 0.5);

/** Return the pixels along the four sides of a plane. */
export function border({ data, height, width }) {
  const found = new Float64Array(2 * (height + width));
  let count = 0;
  for (let x = 0; x < width; x++) {
    found[count++] = data[x];
    found[count++] = data[(height - 1) * width + x];
  }
  for (let y = 0; y < height; y++) {
    found[count++] = data[y * width];
    found[count++] = data[y * width + width - 1];
  }
  return found;
}

/** Apply a function to each number of a plane and its index. */
export function mapped({ data, height, width }, make) {
  const out = new Float32Array(data.length);
  for (let i = 0; i < out.length; i++) out[i] = make(data[i], i);
  return plane(height, width, out);
}

/** Subtract a plane from another. */
export function less(one, other) {
  const [a, b, out] = [one.data, other.data, new Float32Array(one.data.length)];
  for (let i = 0; i < out.length; i++) out[i] = a[i] - b[i];
  return plane(one.height, one.width, out);
}

/** Multiply a plane by a number. */
export function times({ data, height, width }, factor) {
  const out = new Float32Array(data.length);
  for (let i = 0; i < out.length; i++) out[i] = data[i] * factor;
  return plane(height, width, out);
}

/** Return the largest absolute value. */
export function largest({ data }) {
  let most = 0;
  for (let i = 0; i < data.length; i++) most = Math.max(most, Math.abs(data[i]));
  return most;
}

/** Return the mean of some planes. */
export function meanOf(planes) {
  const { height, width } = planes[0];
  const out = plane(height, width);
  for (let i = 0; i < out.data.length; i++) {
    let sum = 0;
    for (const each of planes) sum += each.data[i];
    out.data[i] = sum / planes.length;
  }
  return out;
}

/** Crop a plane. */
export function cropped({ data, width }, top, left, bottom, right) {
  const out = plane(bottom - top, right - left);
  for (let y = top; y < bottom; y++) out.data.set(data.subarray(y * width + left, y * width + right), (y - top) * out.width);
  return out;
}

/** Pad a plane with zeros. */
export function padded({ data, height, width }, margin) {
  const out = plane(height + 2 * margin, width + 2 * margin, new data.constructor((height + 2 * margin) * (width + 2 * margin)));
  for (let y = 0; y < height; y++) {
    out.data.set(data.subarray(y * width, (y + 1) * width), (y + margin) * out.width + margin);
  }
  return out;
}

/** Transpose a plane. */
export function turned({ data, height, width }) {
  const out = plane(width, height, new data.constructor(data.length));
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out.data[x * height + y] = data[y * width + x];
  return out;
}
