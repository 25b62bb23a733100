/** The messages of KServe's inference protocol v2: an IMAGE and a REQUEST tensor go out, a RESPONSE tensor comes back. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { ServerError } from "./errors.js";
import { TaskRequest, TaskResponse } from "./generated/florence2/v1/inference.js";
import { StreamEvent } from "./generated/florence2/v1/stream.js";
import { ModelInferRequest, type ModelInferResponse } from "./generated/grpc_service.js";

const LENGTH_BYTES = 4;

/** The model that answers in one response. It has a batch dimension. */
export const UNARY = { suffix: "", shape: [1n, 1n] } as const;
/** The model that answers in a stream of events. It has no batch dimension. */
export const STREAM = { suffix: "_stream", shape: [1n] } as const;

/** The message for one image and one request. */
export function inferRequest(
  model: string,
  kind: typeof UNARY | typeof STREAM,
  image: Uint8Array,
  request: TaskRequest,
  requestId: string,
): ModelInferRequest {
  const tensors = { IMAGE: image, REQUEST: TaskRequest.encode(request).finish() };
  return ModelInferRequest.fromPartial({
    modelName: model + kind.suffix,
    id: requestId,
    inputs: Object.keys(tensors).map((name) => ({ name, datatype: "BYTES", shape: [...kind.shape] })),
    rawInputContents: Object.values(tensors).map(withLength),
  });
}

/** An element of a BYTES tensor: its length in four bytes, little-endian, and its content. */
export function withLength(content: Uint8Array): Buffer {
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(content.length);
  return Buffer.concat([length, content]);
}

/**
 * The content of a BYTES tensor that has one element.
 *
 * @throws ServerError if the bytes are not exactly one element
 */
export function withoutLength(element: Buffer): Buffer {
  if (element.length < LENGTH_BYTES || element.readUInt32LE() !== element.length - LENGTH_BYTES) {
    throw new ServerError(`the tensor's ${element.length} bytes are not one BYTES element`);
  }
  return element.subarray(LENGTH_BYTES);
}

/** The TaskResponse in a response of Triton. */
export function taskResponse(response: ModelInferResponse): TaskResponse {
  return decoded(TaskResponse, content(response));
}

/** The StreamEvent in a response of Triton. */
export function streamEvent(response: ModelInferResponse): StreamEvent {
  return decoded(StreamEvent, content(response));
}

function content(response: ModelInferResponse): Buffer {
  const raw = response.rawOutputContents[response.outputs.findIndex((output) => output.name === "RESPONSE")];
  if (raw === undefined) {
    throw new ServerError("the response has no tensor RESPONSE in raw_output_contents");
  }
  return withoutLength(raw);
}

/**
 * Decode a message, to its last byte. ts-proto's own `decode` stops at a byte that cannot begin a field, without an
 * error: a message whose length was not stripped would be decoded as an empty one.
 *
 * @throws ServerError if the bytes are not such a message
 */
export function decoded<T>(type: { decode(reader: BinaryReader): T }, bytes: Uint8Array): T {
  const reader = new BinaryReader(bytes);
  let message: T;
  try {
    message = type.decode(reader);
  } catch (cause) {
    throw new ServerError(`the response's ${bytes.length} bytes cannot be decoded`, { cause });
  }
  if (reader.pos !== bytes.length) {
    throw new ServerError(`the response's ${bytes.length} bytes were decoded up to byte ${reader.pos} only`);
  }
  return message;
}
