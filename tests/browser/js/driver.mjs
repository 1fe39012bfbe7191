// A browser that is told what to do, one JSON command a line on stdin, and answers with one JSON line each on stdout:
//   {"id": 1, "call": "openTask", "args": [3, 7]}  ->  {"id": 1, "result": ...}  or  {"id": 1, "error": "..."}
// The commands are the methods of Editor, StatusPage, FilePage or VideoTask. argv[2] is JSON: {kind, url, allowedOrigins,
// executable}, where kind is the name of the class. Ends with stdin.
import readline from "node:readline";
import { Editor } from "./editor.mjs";
import { FilePage, VideoTask } from "./pages.mjs";
import { StatusPage } from "./status.mjs";

const answer = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const options = JSON.parse(process.argv[2]);
const page = await { Editor, FilePage, StatusPage, VideoTask }[options.kind].launch(options);
try {
  answer({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, call, args } = JSON.parse(line);
    try {
      answer({ id, result: (await page[call](...args)) ?? null });
    } catch (error) {
      answer({ id, error: String(error.stack ?? error) });
    }
  }
} finally {
  await page.close();
}
