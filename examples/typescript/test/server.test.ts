/** Against the server FLORENCE2_SERVER, with the demo checkpoint; skipped without it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { credentials, Metadata } from "@grpc/grpc-js";
import { TaskRequest, TaskResponse } from "../src/generated/florence2/v1/inference.js";
import { GRPCInferenceServiceClient, type ModelInferResponse } from "../src/generated/grpc_service.js";
import {
  DeadlineExceededError,
  FinishReason,
  Florence2Client,
  InvalidArgumentError,
  ServerError,
  UnavailableError,
} from "../src/index.js";
import { decoded, inferRequest, UNARY } from "../src/tensors.js";

const url = process.env.FLORENCE2_SERVER;
const image = await readFile(process.env.FLORENCE2_IMAGE ?? "../scene.png");
const ocr = { task: { $case: "ocr", value: {} } } as const;

describe("a real server", { skip: url === undefined ? "FLORENCE2_SERVER is not set" : false }, () => {
  test("text, boxes and phrases are found", async () => {
    using client = new Florence2Client(url);
    assert.equal(await client.readText(image), "CAFE OPEN");
    const found = await client.detect(image);
    assert.deepEqual(
      found.map(({ label }) => label),
      ["red circle", "green triangle", "blue square"],
    );
    assert.ok(found.every(({ confidence = 0 }) => confidence > 0 && confidence <= 1));
    const [, , square] = found;
    assert.ok(square !== undefined);
    assert.equal(await client.describeRegion(image, square.box), "small blue square");
    const [phrase] = await client.ground(image, ["a blue square"]);
    assert.match(phrase?.label ?? "", /blue square/);
  });

  test("the deltas of a stream are the text of its response", async () => {
    using client = new Florence2Client(url);
    let text = "";
    let response: TaskResponse | undefined;
    for await (const { event } of client.stream(image, ocr)) {
      if (event?.$case === "textDelta") text += event.value;
      if (event?.$case === "response") response = event.value;
    }
    assert.equal(text, response?.text);
    assert.ok(text.includes("CAFE"));
  });

  test("an invalid request names the field, the value and the limit, also in a stream", async () => {
    using client = new Florence2Client(url);
    const request = { ...ocr, generation: { numBeams: 99 } };
    for (const answer of [() => client.run(image, request), () => client.stream(image, request).next()]) {
      await assert.rejects(answer, (error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.equal(error.field, "generation.num_beams");
        assert.equal(error.value, "99");
        assert.match(error.requirement ?? "", /8/);
        return true;
      });
    }
  });

  test("run has the response of an answer that is cut at its limit", async () => {
    using client = new Florence2Client(url);
    const cut = await client.run(image, { ...ocr, generation: { maxNewTokens: 3 } });
    assert.equal(cut.finishReason, FinishReason.LENGTH);
    assert.equal(cut.usage?.generatedTokens, 3);
  });

  test("a deadline ends a request and a stream", async () => {
    using client = new Florence2Client(url);
    const options = { timeoutSeconds: 0.001 };
    await assert.rejects(client.readText(image, options), DeadlineExceededError);
    await assert.rejects(client.stream(image, ocr, options).next(), DeadlineExceededError);
    await assert.rejects(client.readText(image, { timeoutSeconds: 0 }), InvalidArgumentError);
  });

  test("a stream can be left before its end", async () => {
    using client = new Florence2Client(url);
    const task = { $case: "moreDetailedCaption", value: {} } as const;
    const events = client.stream(image, { task, generation: { minNewTokens: 900, numBeams: 1 } });
    for await (const { event } of events) {
      assert.equal(event?.$case, "textDelta");
      break;
    }
  });

  test("an aborted request rejects with the signal's reason", async () => {
    using client = new Florence2Client(url);
    await assert.rejects(client.readText(image, { signal: AbortSignal.abort() }), { name: "AbortError" });
    await assert.rejects(client.stream(image, ocr, { signal: AbortSignal.abort() }).next(), { name: "AbortError" });
  });

  test("another model and another port are typed errors", async () => {
    using other = new Florence2Client(url, { model: "florence3" });
    for (const answer of [() => other.readText(image), () => other.stream(image, ocr).next()]) {
      await assert.rejects(answer, (error) => error instanceof ServerError && error.message.includes("florence3"));
    }
    using nobody = new Florence2Client("127.0.0.1:1");
    await assert.rejects(nobody.readText(image), UnavailableError);
  });

  test("the bytes of raw_output_contents are refused unless their length is stripped", async () => {
    const stub = new GRPCInferenceServiceClient(url ?? "", credentials.createInsecure());
    const message = inferRequest("florence2", UNARY, image, TaskRequest.fromPartial(ocr), "unstripped");
    const response = await new Promise<ModelInferResponse>((resolve, reject) => {
      stub.modelInfer(message, new Metadata(), (error, reply) => (error === null ? resolve(reply) : reject(error)));
    });
    stub.close();
    const [raw = Buffer.of()] = response.rawOutputContents;
    assert.throws(() => decoded(TaskResponse, raw), ServerError);
    assert.deepEqual(decoded(TaskResponse, raw.subarray(4)).imageSize, { width: 640, height: 480 });
  });
});
