/** The errors that a request can end with. */
import { status as Status } from "@grpc/grpc-js";
import type { TaskResponse } from "./generated/florence2/v1/inference.js";

/** Base of every error of this client. A request that its own `AbortSignal` ended rejects with the signal's reason. */
export class Florence2Error extends Error {
  /** Identifies the request in the server's log; undefined if it was not sent. */
  requestId: string | undefined;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The request is invalid, and will be invalid again. */
export class InvalidArgumentError extends Florence2Error {
  /** The path of the field, such as `"region_to_ocr.region.x_max"`; undefined if the message names none. */
  readonly field: string | undefined;
  /** The value, as the server's message shows it. */
  readonly value: string | undefined;
  /** The accepted values, with the limit. */
  readonly requirement: string | undefined;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    const found = /^(?:batch element \d+: )?(?<field>[^:]+): got (?<value>.*), expected (?<requirement>.+)$/s.exec(
      message,
    );
    this.field = found?.groups?.field;
    this.value = found?.groups?.value;
    this.requirement = found?.groups?.requirement;
  }
}

/** The server is full, starting, stopping or unreachable. Trying again later is safe. */
export class UnavailableError extends Florence2Error {}

/** The timeout of the request has passed. */
export class DeadlineExceededError extends Florence2Error {}

/** A fault of the server or of its configuration, or a response that no florence2 server sends. */
export class ServerError extends Florence2Error {}

/** The answer was truncated at its maximum number of tokens. */
export class TruncatedAnswerError extends Florence2Error {
  constructor(readonly response: TaskResponse) {
    super(`the answer was truncated after ${response.usage?.generatedTokens ?? 0} tokens`);
  }
}

/**
 * The error for a gRPC status.
 *
 * @param status the status's name, such as `"INVALID_ARGUMENT"`
 * @param message the server's message, or gRPC's
 */
export function errorOfStatus(status: string, message: string, options?: ErrorOptions): Florence2Error {
  switch (status) {
    case "INVALID_ARGUMENT":
      return new InvalidArgumentError(message, options);
    case "DEADLINE_EXCEEDED":
      return new DeadlineExceededError(message, options);
    case "UNAVAILABLE":
    case "CANCELLED": // by a server that is shutting down
      // Triton's Python models cannot send the status DEADLINE_EXCEEDED.
      return message.includes("deadline exceeded")
        ? new DeadlineExceededError(message, options)
        : new UnavailableError(message, options);
    default:
      return new ServerError(`${status}: ${message}`, options);
  }
}

/** The error of this client for anything that a call of grpc-js, or reading its response, throws. */
export function ownError(error: unknown): unknown {
  if (error instanceof Error && "code" in error && "details" in error && typeof error.code === "number") {
    return errorOfStatus(Status[error.code] ?? "UNKNOWN", String(error.details), { cause: error });
  }
  return error;
}
