// A headless Chromium that reaches our own servers and nothing else.
import { chromium } from "playwright-core";

/** All waiting is longer by this factor, for machines that do much else. */
export const PATIENCE = Number(process.env.BROWSER_PATIENCE ?? 1);

/** One page of a new browser: {browser, page}. */
export async function launch({ url, allowedOrigins, executable }) {
  const browser = await chromium.launch({
    executablePath: executable,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const context = await browser.newContext({ viewport: { width: 1500, height: 950 } });
  const origins = new Set([url, ...allowedOrigins].map((u) => new URL(u).origin));
  await context.route("**/*", (route) => {
    const target = new URL(route.request().url());
    const local = ["data:", "blob:"].includes(target.protocol) || origins.has(target.origin);
    return local ? route.continue() : route.abort();
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000 * PATIENCE);
  return { browser, page };
}
