/** Of a path of the API. Relative to the page, which may live below a path of a proxy. */
export function address(path: string): string {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}
