import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type { ServerDuplexStream, ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import { TaskResponse } from "../src/generated/florence2/v1/inference.js";
import type { ModelInferRequest, ModelInferResponse, ModelStreamInferResponse } from "../src/generated/grpc_service.js";
import { Florence2Client, ServerError, TruncatedAnswerError, UnavailableError } from "../src/index.js";
import { inferResponse, serve, UNAVAILABLE } from "./fake_server.js";

type UnaryCall = ServerUnaryCall<ModelInferRequest, ModelInferResponse>;
type StreamCall = ServerDuplexStream<ModelInferRequest, ModelStreamInferResponse>;

const photo = Buffer.alloc(3_000_000, 1);
const read = inferResponse(TaskResponse.fromPartial({ result: { $case: "textResult", value: { text: "CAFE OPEN" } } }));

test("a large request that is refused is sent again", async (t) => {
  let refusals = 2;
  const [url, stop] = await serve({
    modelInfer: ({ request }: UnaryCall, reply: sendUnaryData<ModelInferResponse>) => {
      assert.equal(request.rawInputContents[0]?.length, photo.length + 4);
      reply(refusals-- > 0 ? UNAVAILABLE : null, read);
    },
  });
  t.after(stop);
  using client = new Florence2Client(url);
  assert.equal(await client.readText(photo), "CAFE OPEN");
  assert.equal(refusals, -1);
});

test("a server that refuses every time is unavailable", async (t) => {
  const refuse = (_: UnaryCall, reply: sendUnaryData<ModelInferResponse>) => reply(UNAVAILABLE);
  const [url, stop] = await serve({ modelInfer: refuse });
  t.after(stop);
  using client = new Florence2Client(url);
  await assert.rejects(client.readText(photo, { requestId: "mine" }), (error) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /the queue is full/);
    assert.equal(error.requestId, "mine");
    return true;
  });
});

test("a truncated answer is an error that has the response", async (t) => {
  const response = TaskResponse.fromPartial({ finishReason: 2, usage: { generatedTokens: 7 } });
  const [url, stop] = await serve({
    modelInfer: (_: UnaryCall, reply: sendUnaryData<ModelInferResponse>) => reply(null, inferResponse(response)),
  });
  t.after(stop);
  using client = new Florence2Client(url);
  await assert.rejects(client.readText(photo), (error) => {
    assert.ok(error instanceof TruncatedAnswerError);
    assert.deepEqual(error.response, response);
    return true;
  });
});

test("a stream that ends without a response is an error", async (t) => {
  const [url, stop] = await serve({
    modelStreamInfer: (call: StreamCall) => call.resume().on("end", () => call.end()),
  });
  t.after(stop);
  using client = new Florence2Client(url);
  await assert.rejects(client.stream(photo, {}).next(), ServerError);
});

test("aborting cancels the call on the server", async (t) => {
  const reason = new Error("the user left");
  for (const method of ["modelInfer", "modelStreamInfer"]) {
    const leaving = new AbortController();
    let cancelled: Promise<unknown> | undefined;
    const wait = (call: UnaryCall | StreamCall) => {
      cancelled = once(call, "cancelled");
      leaving.abort(reason);
    };
    const [url, stop] = await serve({ [method]: wait });
    t.after(stop);
    using client = new Florence2Client(url);
    const options = { signal: leaving.signal };
    const answer = method === "modelInfer" ? client.readText(photo, options) : client.stream(photo, {}, options).next();
    await assert.rejects(answer, reason);
    await cancelled;
  }
});

test("leaving the loop cancels the call on the server", async (t) => {
  let cancelled: Promise<unknown> | undefined;
  const [url, stop] = await serve({
    modelStreamInfer: (call: StreamCall) => {
      cancelled = once(call, "cancelled");
      call.write({ inferResponse: read, errorMessage: "" });
    },
  });
  t.after(stop);
  using client = new Florence2Client(url);
  for await (const _ of client.stream(photo, {})) break;
  await cancelled;
});
