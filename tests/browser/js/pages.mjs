// Two more pages: an HTML file on the disk, and a task of Label Studio with a <Video>.
import { LabelStudioPage, Page, PATIENCE } from "./browser.mjs";

export class FilePage extends Page {
  constructor(url, browser, page) {
    super(url, browser, page);
    this.problems = [];
    this.requests = [];
    this.noteProblems(this.problems);
    page.on("request", (request) => this.requests.push(request.url()));
  }

  async open() {
    await this.page.goto(this.url);
  }

  text() {
    return this.page.locator("body").innerText();
  }

  /** Play a video to its end, and return what the browser made of it: {width, height, seconds, played}. */
  playVideo(url) {
    return this.page.evaluate(async (source) => {
      const video = Object.assign(document.createElement("video"), { muted: true, src: source });
      const happens = (name) => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, { once: true });
        video.addEventListener("error", () => reject(new Error(`the browser cannot play it: ${video.error?.message}`)), { once: true });
      });
      document.body.append(video);
      await happens("loadeddata");
      await video.play();
      await happens("ended");
      return { width: video.videoWidth, height: video.videoHeight, seconds: video.duration, played: video.played.end(0) };
    }, url);
  }

  /** Addresses of all links, in order. */
  links() {
    return this.page.$$eval("a", (links) => links.map((link) => link.href));
  }

  /** What the page asked for, itself included; and errors and warnings in the console. */
  traffic() {
    return { requests: this.requests, problems: this.problems };
  }

  /** How many lines of charts can be seen: they have a length and lie on the page. */
  charts() {
    return this.page.$$eval("svg polyline", (lines) => lines.filter((l) => l.getTotalLength() > 0).length);
  }

  /** Whether the page is wider than the window. */
  overflows(width) {
    return this.page.setViewportSize({ width, height: 900 })
      .then(() => this.page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth));
  }

  screenshot(path) {
    return this.page.screenshot({ path, fullPage: true });
  }
}

export class VideoTask extends LabelStudioPage {
  /** Open a task and wait until its regions and its video are there; as a person does, load the page again if not. */
  async open(project, task) {
    const states = [];
    for (let attempt = 0; attempt < 3; attempt++) {
      await this.page.goto(`${this.url}/projects/${project}/data?task=${task}`);
      try {
        await this.page.waitForFunction(() => {
          const annotation = window.Htx?.annotationStore?.selected;
          const video = annotation && [...annotation.names.values()].find((tag) => tag.type === "video");
          return annotation?.regions.length > 0 && video?.length > 1;
        }, null, { timeout: 30_000 * PATIENCE, polling: 200 });
        await this.page.waitForTimeout(1500); // the first picture of the video
        return;
      } catch (error) {
        if (error.name !== "TimeoutError") throw error;
        states.push(JSON.stringify(await this.state()));
      }
    }
    throw new Error(`no video with regions after three loads: ${states.join("; ")}`);
  }

  /** What the editor and the browser know of the task: says in a failure which of them did not get there. */
  state() {
    return this.page.evaluate(() => {
      const store = window.Htx?.annotationStore;
      const video = store?.selected && [...store.selected.names.values()].find((tag) => tag.type === "video");
      const element = document.querySelector("video");
      return {
        kind: store?.selected?.type, regions: store?.selected?.regions.length,
        predictions: store?.predictions?.length, frames: video?.length,
        source: element?.currentSrc, readyState: element?.readyState, networkState: element?.networkState,
        error: element?.error?.message,
      };
    });
  }

  /** Label -> for each of so many frames, what the editor itself shows: [x, y, width, height] in percent, or null. */
  boxes(count) {
    return this.page.evaluate((frames) => Object.fromEntries(
      window.Htx.annotationStore.selected.regions.map((region) => [
        region.labels[0],
        Array.from({ length: frames }, (_, i) => {
          const shape = region.isInLifespan(i + 1) ? region.getShape(i + 1) : null;
          return shape && [shape.x, shape.y, shape.width, shape.height];
        }),
      ]),
    ), count);
  }

  /** Go to a frame, counted from 1, as the player does. */
  async goToFrame(frame) {
    await this.page.evaluate((wanted) => {
      const names = [...window.Htx.annotationStore.selected.names.values()];
      names.find((tag) => tag.type === "video").setFrame(wanted);
    }, frame);
    await this.page.waitForTimeout(800);
  }

  screenshot(path) {
    return this.page.screenshot({ path });
  }
}
