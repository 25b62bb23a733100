package florence2.client;

import static java.util.Objects.requireNonNull;

import florence2.v1.GenerationOptions;
import florence2.v1.TaskRequest;
import java.time.Duration;

/**
 * How a request is answered. {@code RequestOptions.DEFAULT.withTimeout(Duration.ofSeconds(5))}.
 *
 * @param timeout the time for the request, the server's queue included; above zero
 * @param priority 1 (served first) to 3 (served last) among the requests that wait; 0: that of the request
 * @param adapter the name of one of the server's adapters (LoRA); empty: that of the request
 * @param generation the options of the search for an answer; unset options: those of the request
 */
public record RequestOptions(Duration timeout, int priority, String adapter, GenerationOptions generation) {
    /** A minute, and everything else as the request and the server have it. */
    public static final RequestOptions DEFAULT =
            new RequestOptions(Duration.ofMinutes(1), 0, "", GenerationOptions.getDefaultInstance());

    public RequestOptions {
        if (timeout.isZero() || timeout.isNegative()) {
            throw new IllegalArgumentException("timeout: got " + timeout + ", expected more than zero");
        }
        requireNonNull(adapter, "adapter");
        requireNonNull(generation, "generation");
    }

    public RequestOptions withTimeout(Duration value) {
        return new RequestOptions(value, priority, adapter, generation);
    }

    public RequestOptions withPriority(int value) {
        return new RequestOptions(timeout, value, adapter, generation);
    }

    public RequestOptions withAdapter(String value) {
        return new RequestOptions(timeout, priority, value, generation);
    }

    public RequestOptions withGeneration(GenerationOptions value) {
        return new RequestOptions(timeout, priority, adapter, value);
    }

    /** The request with these options and the time that is left for it. */
    TaskRequest applyTo(TaskRequest request, double seconds) {
        var builder = request.toBuilder().setTimeoutSeconds(seconds);
        if (priority != 0) {
            builder.setPriority(priority);
        }
        if (!adapter.isEmpty()) {
            builder.setAdapter(adapter);
        }
        if (!generation.equals(GenerationOptions.getDefaultInstance())) {
            builder.mergeGeneration(generation);
        }
        return builder.build();
    }
}
