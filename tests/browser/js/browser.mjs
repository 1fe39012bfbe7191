// A headless Chromium that reaches our own servers and nothing else.
import { chromium } from "playwright-core";

/** All waiting is longer by this factor, for machines that do much else. */
export const PATIENCE = Number(process.env.BROWSER_PATIENCE ?? 1);

/** What all pages have in common: one page of a new browser, at an address. */
export class Page {
  static async launch(options) {
    const { browser, page } = await launch(options);
    return new this(options.url, browser, page);
  }

  constructor(url, browser, page) {
    this.url = url;
    this.browser = browser;
    this.page = page;
  }

  close() {
    return this.browser.close();
  }

  /** Errors and warnings in the console, as they come, into a list. */
  noteProblems(problems) {
    this.page.on("pageerror", (error) => problems.push(String(error)));
    this.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) problems.push(message.text());
    });
  }
}

/** A page of Label Studio, for which one has to log in. */
export class LabelStudioPage extends Page {
  async login(username, password) {
    await this.page.goto(`${this.url}/user/login/`);
    await this.page.fill("#email", username);
    await this.page.fill("#password", password);
    await Promise.all([this.page.waitForURL(/\/(projects)?\/?$/), this.page.click("button[type=submit]")]);
  }
}

async function launch({ url, allowedOrigins, executable }) {
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
