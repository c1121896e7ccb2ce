// Shapes as rows of pixels, and rectangles of masks. A pixel belongs to a shape if its centre lies inside.

/** A rectangle of pixels: left and top lie inside, right and bottom outside. This one is empty. */
export const emptyRect = () => ({ left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity });

/** The smallest rectangle that holds two rectangles. */
export const union = (a, b) => ({
  left: Math.min(a.left, b.left),
  top: Math.min(a.top, b.top),
  right: Math.max(a.right, b.right),
  bottom: Math.max(a.bottom, b.bottom),
});

/** The part of a rectangle that lies inside the picture, with `margin` more pixels on each side. */
export const clipped = (rect, { width, height }, margin = 0) => ({
  left: Math.max(0, rect.left - margin),
  top: Math.max(0, rect.top - margin),
  right: Math.min(width, rect.right + margin),
  bottom: Math.min(height, rect.bottom + margin),
});

/** The pixels that a round brush covers, as spans {y, left, right}; spans may leave the picture. */
export function* brushSpans(from, to, radius) {
  if (radius < 0.75) {
    // A small brush may miss all centres; it marks the pixels that it touches.
    from = { x: Math.floor(from.x) + 0.5, y: Math.floor(from.y) + 0.5 };
    to = { x: Math.floor(to.x) + 0.5, y: Math.floor(to.y) + 0.5 };
    radius = 0.5;
  }
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy);
  const first = Math.floor(Math.min(from.y, to.y) - radius);
  const last = Math.ceil(Math.max(from.y, to.y) + radius);
  for (let y = first; y <= last; y++) {
    const centre = y + 0.5;
    let [low, high] = [Infinity, -Infinity];
    const add = (a, b) => {
      low = Math.min(low, a);
      high = Math.max(high, b);
    };
    for (const end of [from, to]) {
      const half = radius ** 2 - (centre - end.y) ** 2;
      if (half >= 0) add(end.x - Math.sqrt(half), end.x + Math.sqrt(half));
    }
    if (length && dy) {
      // Where this row crosses the band between the two circles: near enough to the line, and between its ends.
      const middle = from.x + ((centre - from.y) * dx) / dy;
      const reach = (radius * length) / Math.abs(dy);
      const along = (share) => from.x + (share * length ** 2 - (centre - from.y) * dy) / dx;
      const [start, end] = dx ? [along(0), along(1)].sort((a, b) => a - b) : [-Infinity, Infinity];
      const [a, b] = [Math.max(middle - reach, start), Math.min(middle + reach, end)];
      const isBetween = dx || (centre >= Math.min(from.y, to.y) && centre <= Math.max(from.y, to.y));
      if (isBetween && a <= b) add(a, b);
    } else if (length && Math.abs(centre - from.y) <= radius) add(Math.min(from.x, to.x), Math.max(from.x, to.x));
    const [left, right] = [Math.ceil(low - 0.5), Math.floor(high - 0.5) + 1];
    if (left < right) yield { y, left, right };
  }
}

/** The pixels inside a polygon (even-odd rule), as spans {y, left, right}; spans may leave the picture. */
export function* polygonSpans(points) {
  const rows = points.map((point) => point.y);
  for (let y = Math.floor(Math.min(...rows)); y <= Math.ceil(Math.max(...rows)); y++) {
    const centre = y + 0.5;
    const crossings = [];
    points.forEach((a, index) => {
      const b = points[(index + 1) % points.length];
      if (a.y <= centre !== b.y <= centre) crossings.push(a.x + ((centre - a.y) * (b.x - a.x)) / (b.y - a.y));
    });
    crossings.sort((a, b) => a - b);
    for (let index = 0; index + 1 < crossings.length; index += 2) {
      const [left, right] = [Math.ceil(crossings[index] - 0.5), Math.ceil(crossings[index + 1] - 0.5)];
      if (left < right) yield { y, left, right };
    }
  }
}

/** Copy a rectangle out of a mask. */
export function cut(ids, { width }, { left, top, right, bottom }) {
  const piece = new Uint8Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    piece.set(ids.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return piece;
}

/** Copy a piece from `cut` into a mask. */
export function paste(ids, { width }, { left, top, right, bottom }, piece) {
  for (let y = top; y < bottom; y++) {
    const start = (y - top) * (right - left);
    ids.set(piece.subarray(start, start + right - left), y * width + left);
  }
}
