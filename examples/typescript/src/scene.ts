/** Every kind of call about one picture: `npm start -- localhost:8001 ../scene.png`. */
import { readFile } from "node:fs/promises";
import type { DetectedObject } from "./index.js";
import { DeadlineExceededError, Florence2Client, InvalidArgumentError } from "./index.js";

const CAPTION = "A red circle, a green triangle and a blue square.";

const [url = "localhost:8001", path = "../scene.png"] = process.argv.slice(2);
const image = await readFile(path);
using client = new Florence2Client(url);

for (const object of await client.detect(image)) {
  console.log(`object ${shown(object)}: ${await client.describeRegion(image, object.box)}`);
}

for (const object of await client.ground(image, CAPTION, { generation: { numBeams: 1 } })) {
  console.log(`phrase ${shown(object)}`);
}

for await (const { event } of client.stream(image, { task: { $case: "ocrWithRegion", value: {} } })) {
  switch (event?.$case) {
    case "textRegion": {
      // long before the whole page is read
      const [corner] = event.value.quad?.corners ?? [];
      console.log(`stream ${event.value.text} ${corner?.x.toFixed(2)} ${corner?.y.toFixed(2)}`);
      break;
    }
    case "response":
      console.log(`stream complete: ${event.value.usage?.generatedTokens} tokens`);
      break;
  }
}

try {
  await client.describeRegion(image, { xMin: 0, yMin: 0, xMax: 9999, yMax: 10 });
} catch (error) {
  if (!(error instanceof InvalidArgumentError)) throw error;
  console.log(`error ${error.field} is ${error.value}: expected ${error.requirement}`);
}

try {
  await client.readText(image, { timeoutSeconds: 0.001 });
} catch (error) {
  if (!(error instanceof DeadlineExceededError)) throw error;
  console.log("deadline exceeded");
}

function shown({ label, box, confidence }: DetectedObject): string {
  const edges = [box.xMin, box.yMin, box.xMax, box.yMax].map((edge) => edge.toFixed(2));
  return `${label} [${edges.join(" ")}] confidence ${confidence?.toFixed(2)}`;
}
