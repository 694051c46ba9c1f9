// Small helpers of NumPy's that gpunn's preparation of drawings needs: planes are {data, height, width}, row by row.

export const plane = (height, width, data = new Float32Array(height * width)) => ({ data, height, width });

/** Round as Python and NumPy do: halves to the even neighbour. */
export function rounded(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export const clipped = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return the quantile of numbers, between two of them where it falls there; 0 of none. */
export function quantile(values, share) {
  return quantileOfOwn(new Float64Array(values), share);
}

/** Return the quantile of numbers whose order is nobody else's concern. */
export function quantileOfOwn(ordered, share) {
  if (!ordered.length) return 0;
  const place = share * (ordered.length - 1);
  const below = Math.floor(place);
  const low = selected(ordered, below);
  if (place === below) return low;
  let above = Infinity; // all behind the place are at least as large
  for (let i = below + 1; i < ordered.length; i++) above = Math.min(above, ordered[i]);
  return low + (above - low) * (place - below);
}

/** Move the number of a place in the order to that place, larger ones behind it, and return it (Hoare 1961). */
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

/** Return a plane made of each number of another and its place. */
export function mapped({ data, height, width }, make) {
  const out = new Float32Array(data.length);
  for (let i = 0; i < out.length; i++) out[i] = make(data[i], i);
  return plane(height, width, out);
}

/** Return one plane less another. */
export function less(one, other) {
  const [a, b, out] = [one.data, other.data, new Float32Array(one.data.length)];
  for (let i = 0; i < out.length; i++) out[i] = a[i] - b[i];
  return plane(one.height, one.width, out);
}

/** Return a plane times a number. */
export function times({ data, height, width }, factor) {
  const out = new Float32Array(data.length);
  for (let i = 0; i < out.length; i++) out[i] = data[i] * factor;
  return plane(height, width, out);
}

/** Return the largest departure from 0. */
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

/** Return a part of a plane. */
export function cropped({ data, width }, top, left, bottom, right) {
  const out = plane(bottom - top, right - left);
  for (let y = top; y < bottom; y++) out.data.set(data.subarray(y * width + left, y * width + right), (y - top) * out.width);
  return out;
}

/** Lay zeros around a plane. */
export function padded({ data, height, width }, margin) {
  const out = plane(height + 2 * margin, width + 2 * margin, new data.constructor((height + 2 * margin) * (width + 2 * margin)));
  for (let y = 0; y < height; y++) {
    out.data.set(data.subarray(y * width, (y + 1) * width), (y + margin) * out.width + margin);
  }
  return out;
}

/** Exchange rows and columns. */
export function turned({ data, height, width }) {
  const out = plane(width, height, new data.constructor(data.length));
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out.data[x * height + y] = data[y * width + x];
  return out;
}
