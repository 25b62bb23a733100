import assert from "node:assert/strict";
import { test } from "node:test";
import { TaskRequest, TaskResponse } from "../src/generated/florence2/v1/inference.js";
import { ModelInferResponse } from "../src/generated/grpc_service.js";
import { ServerError } from "../src/index.js";
import { decoded, inferRequest, STREAM, taskResponse, UNARY, withLength, withoutLength } from "../src/tensors.js";

const answer = TaskResponse.fromPartial({ text: "</s><s>A red circle.</s>", imageSize: { width: 640, height: 480 } });
const bytes = Buffer.from(TaskResponse.encode(answer).finish());

function response(...rawOutputContents: Buffer[]): ModelInferResponse {
  return ModelInferResponse.fromPartial({ outputs: [{ name: "RESPONSE" }], rawOutputContents });
}

test("an element of a BYTES tensor is its length, little-endian, and its content", () => {
  assert.deepEqual(withLength(Buffer.alloc(258, 7)), Buffer.concat([Buffer.of(2, 1, 0, 0), Buffer.alloc(258, 7)]));
  assert.deepEqual(withoutLength(withLength(bytes)), bytes);
});

test("both models get the same tensors, in shapes of their own", () => {
  const request = TaskRequest.fromPartial({ task: { $case: "ocr", value: {} } });
  for (const kind of [UNARY, STREAM]) {
    const message = inferRequest("florence2", kind, Buffer.from("picture"), request, "id");
    assert.equal(message.modelName, `florence2${kind.suffix}`);
    assert.deepEqual(
      message.inputs.map(({ name, datatype, shape }) => [name, datatype, shape]),
      ["IMAGE", "REQUEST"].map((name) => [name, "BYTES", kind.shape]),
    );
    const [image, sent] = message.rawInputContents.map(withoutLength);
    assert.deepEqual(image, Buffer.from("picture"));
    assert.deepEqual(TaskRequest.decode(sent ?? Buffer.of()), request);
  }
});

test("a response is read from behind its length", () => {
  assert.deepEqual(taskResponse(response(withLength(bytes))), answer);
});

test("bytes whose length was not stripped are refused, where ts-proto decodes an empty message", () => {
  const unstripped = withLength(Buffer.concat([bytes, Buffer.alloc(12 - (bytes.length % 8))]));
  assert.equal((unstripped[0] ?? 0) & 7, 4, "the length begins like the end of a group");
  assert.deepEqual(TaskResponse.decode(unstripped), TaskResponse.fromPartial({}));
  assert.throws(() => decoded(TaskResponse, unstripped), ServerError);
});

test("a response in any other form is refused", () => {
  const length = withLength(bytes);
  for (const broken of [[], [bytes], [length.subarray(1)], [Buffer.concat([length, length])], [Buffer.of(0, 0)]]) {
    assert.throws(() => taskResponse(response(...broken)), ServerError);
  }
  assert.throws(() => taskResponse(response(withLength(Buffer.of(0x0a, 0xff)))), ServerError);
});
