/** What is believed of a user, in the words of the bundle: weights of named tastes, and where these lie. */

/** Weights of tastes by name; they sum to 1. */
export type Belief = Readonly<Record<string, number>>;

/** Two opposed words, of which every taste has one. */
export interface Axis {
  readonly first: string;
  readonly second: string;
}

/** A point of the map, x to the right and y down, about -1 to 1. */
export interface Place {
  readonly x: number;
  readonly y: number;
}

const words = (taste: string): string[] => taste.split(", ");

/** The axes of tastes that are named by one word of each; none where the names have no such form. */
export function axes(tastes: readonly string[]): Axis[] {
  const rows = tastes.map(words);
  const n = rows[0]?.length ?? 0;
  if (tastes.length !== 2 ** n || rows.some((row) => row.length !== n)) return [];
  const pairs = Array.from({ length: n }, (_, i) => [...new Set(rows.map((row) => row[i] ?? ""))]);
  return pairs.every((pair) => pair.length === 2)
    ? pairs.map(([first, second]) => ({ first: first ?? "", second: second ?? "" }))
    : [];
}

/** Every taste alike: what stands for not knowing. */
export function nothing(tastes: readonly string[]): Belief {
  return Object.fromEntries(tastes.map((taste) => [taste, 1 / tastes.length]));
}

/** The probability of the axis' first word. */
export function lean(axis: Axis, belief: Belief): number {
  return Object.entries(belief).reduce((sum, [taste, p]) => sum + (words(taste).includes(axis.first) ? p : 0), 0);
}

// How far each axis goes on the map: eight tastes are the corners of a cube, seen from the side.
const STEPS: readonly Place[] = [
  { x: 0.62, y: 0 },
  { x: 0, y: 0.58 },
  { x: 0.3, y: -0.26 },
];

/** Where each taste lies: corners, where tastes have up to three axes, and else a circle. */
export function places(tastes: readonly string[]): Record<string, Place> {
  const found = axes(tastes);
  const corners = found.length > 0 && found.length <= STEPS.length;
  return Object.fromEntries(tastes.map((taste, i) => [taste, corners ? corner(taste, found) : around(i, tastes.length)]));
}

function corner(taste: string, found: readonly Axis[]): Place {
  const signs = found.map((axis) => (words(taste).includes(axis.first) ? -1 : 1));
  const along = (d: "x" | "y"): number => signs.reduce((sum, sign, i) => sum + sign * (STEPS[i]?.[d] ?? 0), 0);
  return { x: along("x"), y: along("y") };
}

function around(i: number, n: number): Place {
  const angle = (2 * Math.PI * i) / n - Math.PI / 2;
  return { x: 0.9 * Math.cos(angle), y: 0.8 * Math.sin(angle) };
}

/** Tastes that differ in one word: the edges of the map. */
export function edges(tastes: readonly string[]): [string, string][] {
  if (axes(tastes).length === 0) return [];
  const apart = (a: string, b: string): number => words(a).filter((word, i) => word !== words(b)[i]).length;
  return tastes.flatMap((a, i) => tastes.slice(i + 1).flatMap((b): [string, string][] => (apart(a, b) === 1 ? [[a, b]] : [])));
}

/** The expected place under a belief, and the root mean square distance from it: the doubt. */
export function here(belief: Belief, where: Readonly<Record<string, Place>>): { place: Place; doubt: number } {
  const mass = Object.entries(belief).flatMap(([taste, p]) => (where[taste] ? [{ p, at: where[taste] }] : []));
  const x = mass.reduce((sum, { p, at }) => sum + p * at.x, 0);
  const y = mass.reduce((sum, { p, at }) => sum + p * at.y, 0);
  const spread = mass.reduce((sum, { p, at }) => sum + p * ((at.x - x) ** 2 + (at.y - y) ** 2), 0);
  return { place: { x, y }, doubt: Math.sqrt(spread) };
}

/** The taste that is believed most. */
export function likeliest(belief: Belief): string | null {
  const [first] = Object.entries(belief).sort(([, a], [, b]) => b - a);
  return first?.[0] ?? null;
}
