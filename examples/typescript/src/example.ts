/** Every kind of call once: `npm start -- localhost:8001 ../scene.png`. */
import { readFile } from "node:fs/promises";
import type { DetectedObject } from "./index.js";
import { DeadlineExceededError, detectedObject, Florence2Client, InvalidArgumentError } from "./index.js";

const [url = "localhost:8001", path = "../scene.png"] = process.argv.slice(2);
const image = await readFile(path);
using client = new Florence2Client(url);

const found = await client.detect(image);
for (const object of found) {
  console.log("detect:", shown(object), "->", await client.describeRegion(image, object.box));
}

for (const object of await client.ground(image, "A red circle, a green triangle and a blue square.")) {
  console.log("ground:", shown(object));
}

for await (const { event } of client.stream(image, { task: { $case: "objectDetection", value: {} } })) {
  switch (event?.$case) {
    case "detection": // long before the whole answer is there
      console.log("stream:", shown(detectedObject(event.value)));
      break;
    case "response":
      console.log("stream:", event.value.usage?.generatedTokens, "tokens");
      break;
  }
}

try {
  await client.describeRegion(image, { xMin: 0, yMin: 0, xMax: 9999, yMax: 10 });
} catch (error) {
  if (!(error instanceof InvalidArgumentError)) throw error;
  console.log("error:", error.message);
}

try {
  await client.readText(image, { timeoutSeconds: 0.001 });
} catch (error) {
  if (!(error instanceof DeadlineExceededError)) throw error;
  console.log("deadline:", error.name);
}

const leaving = new AbortController();
const answer = client.readText(image, { signal: leaving.signal });
leaving.abort(new Error("the user left"));
console.log("abort:", await answer.catch((error: unknown) => String(error)));

function shown({ label, box }: DetectedObject): string {
  const edges = [box.xMin, box.yMin, box.xMax, box.yMax].map(Math.round);
  return `${label} [${edges.join(", ")}]`;
}
