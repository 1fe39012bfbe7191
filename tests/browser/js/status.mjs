// What a person sees on the backend's page /status, as methods.
import { Page } from "./browser.mjs";

export class StatusPage extends Page {
  constructor(url, browser, page) {
    super(url, browser, page);
    this.loads = 0;
    this.problems = [];
    this.noteProblems(this.problems);
    page.on("framenavigated", () => { this.loads += 1; });
  }

  async open() {
    await this.page.goto(`${this.url}/status`);
  }

  /** Wait until the page shows a text. */
  async waitForText(text) {
    await this.page.getByText(text).first().waitFor({ timeout: 8_000 });
  }

  /** What is shown: each job's visible text and bar, and how often the page was loaded. */
  async read() {
    const shown = await this.page.evaluate(() => ({
      title: document.title,
      summary: document.getElementById("summary").innerText,
      jobs: Object.fromEntries([...document.querySelectorAll("li")].map((job) => {
        const bar = job.querySelector("progress");
        return [job.id, { text: job.innerText, part: bar.value / bar.max, touched: job.touched ?? false }];
      })),
      unfolded: document.querySelector("details")?.open ?? null,
      unreachable: !document.getElementById("unreachable").hidden,
    }));
    return { ...shown, loads: this.loads };
  }

  /** Unfold the jobs that ended, by a click. */
  unfold() {
    return this.page.locator("details > summary").click();
  }

  /** Note on each job's element that it has been seen; an element that is made anew does not have the note. */
  touch() {
    return this.page.evaluate(() => { for (const job of document.querySelectorAll("li")) job.touched = true; });
  }

  /** Try to run a script from within the page, as something smuggled into it would; whether it ran. */
  smuggleScript() {
    return this.page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.smuggled = true";
      document.body.append(script);
      return window.smuggled === true;
    });
  }

  /** Whether the page is wider than the window. */
  overflows() {
    return this.page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  }

  async look({ dark = false, width = 1100, height = 1100 } = {}) {
    await this.page.emulateMedia({ colorScheme: dark ? "dark" : "light" });
    await this.page.setViewportSize({ width, height });
  }

  screenshot(path) {
    return this.page.screenshot({ path, fullPage: true });
  }

  /** Errors and warnings in the console since the last call; violations of the content policy are among them. */
  takeProblems() {
    return this.problems.splice(0);
  }
}
