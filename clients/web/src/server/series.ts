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

/** The mean of a histogram or summary, over all its labels; null where nothing was observed. */
export function mean(all: Series, name: string): number | null {
  const sum = total(all, `${name}_sum`);
  const count = total(all, `${name}_count`);
  return sum === null || count === null || count === 0 ? null : sum / count;
}

/** Values above zero by one label, the largest first. */
export function byLabel(all: Series, name: string, label: string): [string, number][] {
  const pattern = new RegExp(`^${name}\\{[^}]*${label}="([^"]*)"`);
  return [...all]
    .flatMap(([key, value]): [string, number][] => {
      const found = pattern.exec(key)?.[1];
      return found === undefined || value === 0 ? [] : [[found, value]];
    })
    .sort(([, a], [, b]) => b - a);
}
