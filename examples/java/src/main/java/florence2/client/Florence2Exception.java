package florence2.client;

import florence2.v1.TaskResponse;
import io.grpc.Status;
import java.util.Optional;
import java.util.regex.Pattern;

/** A request that failed. Its subclasses are all the ways in which it can. */
public abstract sealed class Florence2Exception extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private Florence2Exception(String message, Throwable cause) {
        super(message, cause);
    }

    /** The request is invalid, and will be invalid again. The message names the field, the value and the limit. */
    public static final class InvalidArgument extends Florence2Exception {
        private static final long serialVersionUID = 1L;
        private static final Pattern MESSAGE = Pattern.compile("([^:]+): got (.*), expected (.+)", Pattern.DOTALL);

        InvalidArgument(String message, Throwable cause) {
            super(message, cause);
        }

        /** The path of the field, such as {@code phrase_grounding.caption}; empty if the message names none. */
        public Optional<String> field() {
            return part(1);
        }

        /** The invalid value, as shown in the message. */
        public Optional<String> value() {
            return part(2);
        }

        /** The values that are accepted. */
        public Optional<String> requirement() {
            return part(3);
        }

        private Optional<String> part(int group) {
            var found = MESSAGE.matcher(getMessage());
            return found.matches() ? Optional.of(found.group(group)) : Optional.empty();
        }
    }

    /** The server is full, starting, stopping or unreachable. There was no answer; retrying is safe. */
    public static final class Unavailable extends Florence2Exception {
        private static final long serialVersionUID = 1L;

        Unavailable(String message, Throwable cause) {
            super(message, cause);
        }
    }

    /** The timeout passed before the answer was complete. */
    public static final class DeadlineExceeded extends Florence2Exception {
        private static final long serialVersionUID = 1L;

        DeadlineExceeded(String message, Throwable cause) {
            super(message, cause);
        }
    }

    /** The thread was interrupted, or the gRPC context of the call was cancelled. */
    public static final class Cancelled extends Florence2Exception {
        private static final long serialVersionUID = 1L;

        Cancelled(String message, Throwable cause) {
            super(message, cause);
        }
    }

    /** The answer was truncated at its length limit. */
    public static final class TruncatedAnswer extends Florence2Exception {
        private static final long serialVersionUID = 1L;
        private final TaskResponse response;

        TruncatedAnswer(TaskResponse response) {
            super("the answer was truncated after " + response.getUsage().getGeneratedTokens() + " tokens", null);
            this.response = response;
        }

        /** What there is of the answer. */
        public TaskResponse response() {
            return response;
        }
    }

    /**
     * Any other error: a fault of the server, a missing model, a rejected token, or a response that no florence2 server
     * sends.
     */
    public static final class ServerFault extends Florence2Exception {
        private static final long serialVersionUID = 1L;
        private final Status.Code code;

        ServerFault(Status.Code code, String message, Throwable cause) {
            super(code == Status.Code.OK ? message : code + ": " + message, cause);
            this.code = code;
        }

        /** gRPC's code; OK if the response itself is wrong. */
        public Status.Code code() {
            return code;
        }
    }

    /** The exception for a response that no florence2 server sends. */
    static Florence2Exception unexpected(String message) {
        return new ServerFault(Status.Code.OK, message, null);
    }

    /** The exception for the name of a gRPC status, such as {@code INVALID_ARGUMENT}. */
    static Florence2Exception ofName(String name, String message) {
        Status.Code code;
        try {
            code = Status.Code.valueOf(name);
        } catch (IllegalArgumentException unknown) {
            code = Status.Code.UNKNOWN;
        }
        return of(code.toStatus().withDescription(message), null);
    }

    static Florence2Exception of(Status status, Throwable cause) {
        var message = status.getDescription() == null ? status.getCode().toString() : status.getDescription();
        return switch (status.getCode()) {
            case INVALID_ARGUMENT -> new InvalidArgument(message, cause);
            case DEADLINE_EXCEEDED -> new DeadlineExceeded(message, cause);
            // Triton's models have no such status, so the server sends this one if it notices the deadline first.
            case UNAVAILABLE -> message.contains("deadline exceeded")
                    ? new DeadlineExceeded(message, cause)
                    : new Unavailable(message, cause);
            case CANCELLED -> new Cancelled(message, cause);
            default -> new ServerFault(status.getCode(), message, cause);
        };
    }
}
