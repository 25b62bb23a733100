/** A typed client of florence2-triton over gRPC. */
import { randomUUID } from "node:crypto";
import { type ChannelCredentials, type ClientOptions, credentials, Metadata } from "@grpc/grpc-js";
import {
  DeadlineExceededError,
  errorOfStatus,
  Florence2Error,
  InvalidArgumentError,
  ownError,
  ServerError,
  TruncatedAnswerError,
} from "./errors.js";
import type { BoundingBox } from "./generated/florence2/v1/geometry.js";
import { type DeepPartial, FinishReason, TaskRequest, type TaskResponse } from "./generated/florence2/v1/inference.js";
import type { Detection } from "./generated/florence2/v1/results.js";
import type { StreamEvent } from "./generated/florence2/v1/stream.js";
import {
  GRPCInferenceServiceClient,
  type ModelInferRequest,
  type ModelInferResponse,
  type ModelStreamInferResponse,
} from "./generated/grpc_service.js";
import { inferRequest, STREAM, streamEvent, taskResponse, UNARY } from "./tensors.js";

/** Any request, such as `{ task: { $case: "ocr", value: {} } }`. Fields that are left out have their defaults. */
export type Request = DeepPartial<TaskRequest>;

/** How a request is sent. */
export interface RequestOptions {
  /** Seconds, above 0, until the request fails with a `DeadlineExceededError`. Default: 60. */
  readonly timeoutSeconds?: number;
  /** Cancels the request, on the server too. The promise or the iterator then throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** Identifies the request in the server's log. Default: a random one. */
  readonly requestId?: string;
}

/** How a task is answered, beside how its request is sent. See `TaskRequest` for the three fields. */
export type TaskOptions = RequestOptions & Pick<Request, "generation" | "priority" | "adapter">;

/** What a client is connected to. */
export interface ClientSettings {
  /** Default: unencrypted. `credentials.createSsl(...)` of `@grpc/grpc-js` encrypts. */
  readonly credentials?: ChannelCredentials;
  /** Default: `"florence2"`. */
  readonly model?: string;
  /** Further options of the channel. */
  readonly channelOptions?: ClientOptions;
}

/** A detected object. Its box is in pixels of the image as displayed. */
export interface DetectedObject {
  readonly label: string;
  readonly box: BoundingBox;
  /** 0 to 1, for thresholds. */
  readonly confidence: number | undefined;
}

const DEFAULT_TIMEOUT_SECONDS = 60;
const MEBIBYTE = 1024 * 1024;

// grpc-js keeps what it may have to send again, and by default no more than a mebibyte of a request: less than a photo.
const CHANNEL_OPTIONS: ClientOptions = {
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
  "grpc.per_rpc_retry_buffer_size": 64 * MEBIBYTE,
  "grpc.retry_buffer_size": 256 * MEBIBYTE,
  "grpc.service_config": JSON.stringify({
    methodConfig: [
      {
        name: [{ service: "inference.GRPCInferenceService", method: "ModelInfer" }],
        retryPolicy: {
          maxAttempts: 5,
          initialBackoff: "0.1s",
          maxBackoff: "5s",
          backoffMultiplier: 2,
          retryableStatusCodes: ["UNAVAILABLE"],
        },
      },
    ],
  }),
};

/**
 * A client of one server, or of several behind one name. Create it once and share it.
 *
 * Images are the bytes of a file: JPEG, PNG, WebP and others. A request that fails with UNAVAILABLE is sent up to five
 * times within its timeout; streams are not sent again.
 */
export class Florence2Client implements Disposable {
  readonly #stub: GRPCInferenceServiceClient;
  readonly #model: string;

  constructor(url = "localhost:8001", settings: ClientSettings = {}) {
    this.#stub = new GRPCInferenceServiceClient(url, settings.credentials ?? credentials.createInsecure(), {
      ...CHANNEL_OPTIONS,
      ...settings.channelOptions,
    });
    this.#model = settings.model ?? "florence2";
  }

  /** Detect objects. */
  async detect(image: Uint8Array, options?: TaskOptions): Promise<DetectedObject[]> {
    return this.#answer(image, { ...options, task: { $case: "objectDetection", value: {} } }, options, detections);
  }

  /** Find the phrases of a caption, or each of several phrases. */
  async ground(image: Uint8Array, phrases: string | string[], options?: TaskOptions): Promise<DetectedObject[]> {
    const value = typeof phrases === "string" ? { caption: phrases } : { phrases };
    return this.#answer(image, { ...options, task: { $case: "phraseGrounding", value } }, options, detections);
  }

  /** Describe a region in a few words. */
  async describeRegion(image: Uint8Array, region: BoundingBox, options?: TaskOptions): Promise<string> {
    return this.#answer(
      image,
      { ...options, task: { $case: "regionToDescription", value: { region } } },
      options,
      text,
    );
  }

  /** Read the text in an image. */
  async readText(image: Uint8Array, options?: TaskOptions): Promise<string> {
    return this.#answer(image, { ...options, task: { $case: "ocr", value: {} } }, options, text);
  }

  /** Send any request. Its response may be truncated: see `finishReason`. */
  async run(image: Uint8Array, request: Request, options?: RequestOptions): Promise<TaskResponse> {
    return this.#answer(image, request, options, (response) => response);
  }

  /**
   * Send any request, and iterate over the events of its answer; the last one is `response`. Leaving the loop cancels
   * the request, on the server too.
   */
  async *stream(image: Uint8Array, request: Request, options?: RequestOptions): AsyncGenerator<StreamEvent, void> {
    const sent = new Sent(request, options);
    const call = this.#stub.modelStreamInfer(new Metadata(), { deadline: sent.deadline });
    call.on("error", () => {}); // once the loop has been left, nothing else listens
    const cancel = () => call.cancel();
    sent.signal?.addEventListener("abort", cancel, { once: true });
    try {
      call.end(sent.message(this.#model, STREAM, image));
      let last: StreamEvent["event"];
      for await (const response of call as AsyncIterable<ModelStreamInferResponse>) {
        const event = eventOf(response);
        last = event.event;
        yield event;
      }
      if (last?.$case !== "response") {
        throw new ServerError("the stream ended without a response");
      }
    } catch (error) {
      throw sent.error(error);
    } finally {
      sent.signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  /** Close the connection. */
  close(): void {
    this.#stub.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #answer<T>(
    image: Uint8Array,
    request: Request,
    options: RequestOptions | undefined,
    read: (response: TaskResponse) => T,
  ): Promise<T> {
    const sent = new Sent(request, options);
    try {
      return read(taskResponse(await this.#infer(sent.message(this.#model, UNARY, image), sent)));
    } catch (error) {
      throw sent.error(error);
    }
  }

  #infer(message: ModelInferRequest, { deadline, signal }: Sent): Promise<ModelInferResponse> {
    return new Promise((resolve, reject) => {
      const call = this.#stub.modelInfer(message, new Metadata(), { deadline }, (error, response) => {
        signal?.removeEventListener("abort", cancel);
        if (error === null) {
          resolve(response);
        } else {
          reject(error);
        }
      });
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }
}

/** A request on its way. */
class Sent {
  readonly requestId: string;
  readonly deadline: Date;
  readonly signal: AbortSignal | undefined;
  readonly #request: TaskRequest;
  readonly #timeoutSeconds: number;

  constructor(request: Request, options: RequestOptions = {}) {
    this.signal = options.signal;
    this.signal?.throwIfAborted();
    this.#timeoutSeconds = options.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS;
    if (!(this.#timeoutSeconds > 0)) {
      throw new InvalidArgumentError(`timeoutSeconds: got ${this.#timeoutSeconds}, expected above 0`);
    }
    this.requestId = options.requestId ?? randomUUID();
    this.deadline = new Date(Date.now() + this.#timeoutSeconds * 1000);
    this.#request = TaskRequest.fromPartial({ ...request, timeoutSeconds: this.#timeoutSeconds });
  }

  message(model: string, kind: typeof UNARY | typeof STREAM, image: Uint8Array): ModelInferRequest {
    return inferRequest(model, kind, image, this.#request, this.requestId);
  }

  /** What the caller gets for whatever ended the request. */
  error(error: unknown): unknown {
    if (this.signal?.aborted === true) {
      return this.signal.reason;
    }
    const own = ownError(error);
    if (own instanceof DeadlineExceededError) {
      own.message = `no answer within ${this.#timeoutSeconds} s: ${own.message}`;
    }
    if (own instanceof Florence2Error) {
      own.requestId = this.requestId;
    }
    return own;
  }
}

function eventOf(response: ModelStreamInferResponse): StreamEvent {
  // Beside an error of Triton itself, which has only a text, there is an empty response.
  if (response.errorMessage !== "" || response.inferResponse === undefined) {
    throw new ServerError(response.errorMessage);
  }
  const event = streamEvent(response.inferResponse);
  if (event.event?.$case === "error") {
    throw errorOfStatus(event.event.value.status, event.event.value.message);
  }
  return event;
}

/** A response that is not truncated. */
function whole(response: TaskResponse): TaskResponse {
  if (response.finishReason === FinishReason.LENGTH) {
    throw new TruncatedAnswerError(response);
  }
  return response;
}

function detections(response: TaskResponse): DetectedObject[] {
  const { result } = whole(response);
  if (result?.$case !== "detections") {
    throw new ServerError(`the response has ${result?.$case ?? "no result"}, expected detections`);
  }
  return result.value.detections.map(detectedObject);
}

/** A detection, whose box is always there. */
function detectedObject({ label, boundingBox, confidence }: Detection): DetectedObject {
  if (boundingBox === undefined) {
    throw new ServerError(`the detection ${JSON.stringify(label)} has no bounding box`);
  }
  return { label, box: boundingBox, confidence };
}

function text(response: TaskResponse): string {
  const { result } = whole(response);
  if (result?.$case !== "textResult") {
    throw new ServerError(`the response has ${result?.$case ?? "no result"}, expected a text`);
  }
  return result.value.text;
}
