/** Series of GET /metrics (Prometheus's text format), by their names. */

export type Series = ReadonlyMap<string, number>;

export function series(text: string): Series {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const gap = line.lastIndexOf(" ");
    if (gap > 0 && !line.startsWith("#")) found.set(line.slice(0, gap), Number(line.slice(gap + 1)));
  }
  return found;
}

/** The sum over all labels of a name; null where there is no such series. */
export function total(all: Series, name: string): number | null {
  const values = [...all].filter(([key]) => key === name || key.startsWith(`${name}{`)).map(([, value]) => value);
  return values.length === 0 ? null : values.reduce((a, b) => a + b, 0);
}
