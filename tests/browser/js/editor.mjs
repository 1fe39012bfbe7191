// What an annotator does in Label Studio 1.23, as methods. Gestures are real: mouse and keys on what the page shows.
// The page's own store (window.Htx) is only read: to wait for the right moment and to report what is there.
// Coordinates are percent of the picture, frames are 0-based (the page itself counts from 1).
import { LabelStudioPage, PATIENCE } from "./browser.mjs";

const SAVE = /\/api\/(tasks\/\d+\/annotations|annotations\/\d+)\//;

export class Editor extends LabelStudioPage {
  constructor(url, browser, page) {
    super(url, browser, page);
    this.failures = [];
    this.held = Promise.resolve();
    this.releaseAnswer = () => {};
    page.on("pageerror", (error) => this.failures.push(String(error)));
  }

  // ---- pages

  /** Upload a file with the import dialog. */
  async importFile(project, path) {
    await this.page.goto(`${this.url}/projects/${project}/data/import`);
    await this.page.locator("input[type=file]").first().setInputFiles(path);
    await this.page.getByText("1 files uploaded").waitFor();
    await this.page.locator("button", { hasText: /^Import$/ }).last().click();
    await this.page.waitForURL((target) => !target.pathname.endsWith("/import"));
  }

  async openTask(project, task) {
    await this.page.goto(`${this.url}/projects/${project}/data?task=${task}`);
    await this.settled();
  }

  /** The project's list of tasks. */
  async openTaskList(project) {
    await this.page.goto(`${this.url}/projects/${project}/data`);
    await this.page.getByText(/^Tasks: [1-9]/).first().waitFor();
    await this.page.waitForTimeout(1500); // its columns are laid out in the next ticks
  }

  /** Close the task, as someone who goes home does. */
  async leave() {
    await this.page.goto("about:blank");
  }

  async reload() {
    await this.page.reload();
    await this.settled();
  }

  /** Wait until an annotation is open, its current frame is drawn, and no answer of the backend is awaited. */
  async settled() {
    await this.page.waitForFunction(() => {
      const store = window.Htx;
      const annotation = store?.annotationStore?.selected;
      const image = annotation && [...annotation.names.values()].find((tag) => tag.type === "image");
      return image?.currentImageEntity?.imageLoaded && image.stageRef && image.stageWidth > 1 && !store.awaitingSuggestions;
    }, null, { timeout: 60_000 * PATIENCE, polling: 100 });
    await this.page.waitForTimeout(300); // drawing of regions follows in the next ticks
  }

  screenshot(path) {
    return this.page.screenshot({ path });
  }

  /** Errors that the page did not catch, since the last call. */
  takeFailures() {
    return this.failures.splice(0);
  }

  // ---- switches and tools

  async setSwitch(name, on) {
    const box = this.page.getByTestId(`bottombar-${name}-toggle`);
    await box.waitFor({ state: "attached" });
    if ((await box.isChecked()) !== on) await this.page.locator("label", { has: box }).click();
    if ((await box.isChecked()) !== on) throw new Error(`the switch ${name} did not turn`);
  }

  async chooseTool(name) {
    await this.page.locator(`button.lsf-tool[aria-label="${name}"]:not(.lsf-tool_smart)`).click();
  }

  /** Choose a magenta tool: the only one, or the one with this name on the menu that opens beside the button. */
  async chooseSmartTool(name) {
    const tools = this.page.locator("button.lsf-tool_smart");
    if ((await tools.count()) === 1) return tools.click();
    await tools.first().hover();
    return this.page.locator(`.lsf-toolbar__smart button.lsf-tool[aria-label="${name}"]`).click();
  }

  /** Choose a label of the tag with this name, by clicking on it. */
  async chooseLabel(tag, label) {
    const { group, chosen } = await this.page.evaluate(([tagName, value]) => {
      const tags = [...window.Htx.annotationStore.selected.names.values()].filter((t) => t.type.endsWith("labels"));
      const found = tags.find((t) => t.name.split("@")[0] === tagName);
      return { group: tags.indexOf(found), chosen: found.selectedValues?.().includes(value) };
    }, [tag, label]);
    if (chosen) return;
    await this.page.locator(".lsf-labels").nth(group).locator(".lsf-label", { hasText: label }).first().click();
  }

  unselect() {
    return this.page.keyboard.press("u");
  }

  deleteSelected() {
    return this.page.keyboard.press("Backspace");
  }

  /** Id of the selected region, or null. */
  selected() {
    return this.page.evaluate(() => window.Htx.annotationStore.selected.highlightedNode?.cleanId ?? null);
  }

  // ---- frames

  frame() {
    return this.page.evaluate(() => {
      const image = [...window.Htx.annotationStore.selected.names.values()].find((tag) => tag.type === "image");
      return image.currentImage;
    });
  }

  async frameCount() {
    const text = await this.page.locator(".lsf-pagination__page-indicator").innerText();
    return Number(text.match(/of\s+(\d+)/)[1]);
  }

  /** Go to a frame by typing its number. */
  async goToFrame(index) {
    if ((await this.frame()) !== index) {
      await this.page.locator(".lsf-pagination__page-indicator").click();
      const input = this.page.locator(".lsf-pagination__input input");
      await input.fill(String(index + 1));
      await input.press("Enter");
    }
    await this._reached(index);
  }

  async nextFrame() {
    const index = (await this.frame()) + 1;
    await this.page.keyboard.press("Control+ArrowRight");
    await this._reached(index);
  }

  async _reached(index) {
    await this.page.waitForFunction((wanted) => {
      const image = [...window.Htx.annotationStore.selected.names.values()].find((tag) => tag.type === "image");
      return image.currentImage === wanted && image.currentImageEntity.imageLoaded;
    }, index, { polling: 50 });
    await this.page.waitForTimeout(250);
  }

  /** Size of the shown frame's picture, in its own pixels. */
  pictureSize() {
    return this.page.evaluate(() => {
      const image = [...window.Htx.annotationStore.selected.names.values()].find((tag) => tag.type === "image");
      return [image.currentImageEntity.naturalWidth, image.currentImageEntity.naturalHeight];
    });
  }

  // ---- gestures on the picture

  _stage() {
    return this.page.evaluate(() => {
      const image = [...window.Htx.annotationStore.selected.names.values()].find((tag) => tag.type === "image");
      const { x, y } = image.stageRef.container().getBoundingClientRect();
      const offset = image.alignmentOffset ?? { x: 0, y: 0 };
      return { x: x + offset.x, y: y + offset.y, width: image.stageWidth, height: image.stageHeight };
    });
  }

  async _onScreen(points) {
    const stage = await this._stage();
    return points.map(([x, y]) => [stage.x + (stage.width * x) / 100, stage.y + (stage.height * y) / 100]);
  }

  async click(x, y, modifiers = []) {
    const [point] = await this._onScreen([[x, y]]);
    for (const key of modifiers) await this.page.keyboard.down(key);
    await this.page.mouse.click(...point);
    for (const key of modifiers) await this.page.keyboard.up(key);
  }

  async stroke(points) {
    const [first, ...others] = await this._onScreen(points);
    await this.page.mouse.move(...first);
    await this.page.mouse.down();
    for (const point of others) await this.page.mouse.move(...point, { steps: 8 });
    await this.page.mouse.up();
    await this.page.waitForTimeout(300); // the region is finished in the next ticks
  }

  /**
   * Click with the magenta point tool. Ctrl lets the click through masks (BrushLabels only) and boxes that are there.
   * wait: until the answer is there, and return what it held: {status, errors, frames with masks of this label, seconds}.
   */
  smartClick(tag, label, x, y, { positive = true, through = false, wait = true } = {}) {
    const keys = [...(through ? ["Control"] : []), ...(positive ? [] : ["Alt"])];
    return this._smart("key-point-tool", tag, label, wait, () => this.click(x, y, keys));
  }

  /** Draw a box with the magenta rectangle tool, from corner to corner; see smartClick. */
  smartBox(tag, label, from, to, { wait = true } = {}) {
    const middle = from.map((v, i) => (v + to[i]) / 2);
    return this._smart("rectangle-tool", tag, label, wait, () => this.stroke([from, middle, to]));
  }

  async _smart(tool, tag, label, wait, gesture) {
    if (await this.selected()) await this.unselect(); // a selected region would take the label's key
    await this.chooseSmartTool(tool); // before the label: choosing a tool drops the labels of other tags
    await this.chooseLabel(tag, label);
    const started = Date.now();
    const sent = this.page.waitForResponse((r) => r.url().includes("/interactive-annotating"), { timeout: 60_000 * PATIENCE });
    sent.catch(() => {}); // reported below, where it is awaited
    await gesture();
    if (!wait) return null;
    const response = await sent;
    const body = await response.json();
    await this.settled();
    const masks = (body.data?.result ?? []).filter(
      (r) => ["brushlabels", "bitmasklabels"].includes(r.type) && r.value[r.type][0] === label);
    return {
      status: response.status(),
      errors: body.errors ?? [],
      frames: masks.map((r) => r.item_index),
      seconds: (Date.now() - started) / 1000,
    };
  }

  /** Keep the answer to the next smart click on its way to the page, until releaseAnswer is called. */
  async holdNextAnswer() {
    const pattern = "**/interactive-annotating*";
    const released = new Promise((release) => { this.releaseAnswer = release; });
    let arrived;
    this.held = new Promise((resolve) => { arrived = resolve; });
    await this.page.route(pattern, async (route) => {
      const response = await route.fetch();
      arrived();
      await released;
      await route.fulfill({ response });
    }, { times: 1 });
  }

  /** Wait until holdNextAnswer has an answer: the backend has given it, and the page does not know. */
  answerHeld() {
    return this.held;
  }

  /** Select the mask or box under a point, and return its id. */
  async selectMask(x, y) {
    await this.chooseTool("move-tool");
    await this.click(x, y);
    await this.page.waitForFunction(() => window.Htx.annotationStore.selected.highlightedNode, null, { timeout: 5000 * PATIENCE });
    return this.selected();
  }

  // ---- what is there

  /** Each region in short. */
  regions() {
    return this.page.evaluate(() => window.Htx.annotationStore.selected.regions.map((r) => ({
      id: r.cleanId, type: r.type, frame: r.item_index, origin: r.origin, labels: r.results.map((x) => x.mainValue[0]),
    })));
  }

  /** The annotation as it would be submitted. */
  serialize() {
    return this.page.evaluate(() => window.Htx.annotationStore.selected.serializeAnnotation());
  }

  /** Two pictures (base64 PNG) of the shown frame: with all regions, and with all of them hidden. */
  async framePictures() {
    await this.page.mouse.move(5, 5); // no cursor on the picture
    const stage = await this._stage();
    const clip = { x: Math.round(stage.x), y: Math.round(stage.y), width: Math.floor(stage.width), height: Math.floor(stage.height) };
    const take = async () => (await this.page.screenshot({ clip })).toString("base64");
    const shown = await take();
    await this.page.getByRole("button", { name: "Hide all regions" }).click();
    await this.page.waitForTimeout(200);
    const hidden = await take();
    await this.page.getByRole("button", { name: "Show all regions" }).click();
    await this.page.waitForTimeout(200);
    return { shown, hidden };
  }

  /** Press Submit or Update, and return the saved annotation. */
  async submit() {
    const saved = this.page.waitForResponse(
      (r) => SAVE.test(`${r.url().split("?")[0]}/`) && ["POST", "PATCH"].includes(r.request().method()),
      { timeout: 120_000 * PATIENCE },
    );
    await this.page.locator("[data-testid=bottombar-submit-button], [data-testid=bottombar-update-button]").click();
    const response = await saved;
    if (!response.ok()) throw new Error(`saving answered ${response.status()}: ${await response.text()}`);
    const annotation = await response.json();
    await this.page.waitForFunction(
      (id) => String(window.Htx.annotationStore.selected?.pk) === String(id), annotation.id, { polling: 100 });
    return annotation;
  }
}
