package florence2.client;

import florence2.v1.StreamEvent;
import inference.GRPCInferenceServiceGrpc;
import inference.GrpcService.ModelInferRequest;
import inference.GrpcService.ModelStreamInferResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * The events of a request that is being answered. The last one has the response.
 *
 * <pre>{@code
 * try (var events = client.stream(image, request, RequestOptions.DEFAULT)) {
 *     while (events.hasNext()) {
 *         System.out.println(events.next().getEventCase());
 *     }
 * }
 * }</pre>
 *
 * <p>Both methods throw a {@link Florence2Exception} if the request fails. One thread reads a stream.
 */
public final class EventStream implements Iterator<StreamEvent>, AutoCloseable {
    private static final Metadata STATUS_OF_ERRORS = new Metadata();

    static {
        // With this header, Triton ends a failed stream with a status instead of sending only a text.
        STATUS_OF_ERRORS.put(Metadata.Key.of("triton_grpc_error", Metadata.ASCII_STRING_MARSHALLER), "true");
    }

    private final Context.CancellableContext context = Context.current().withCancellation();
    private final Iterator<ModelStreamInferResponse> answers;
    private StreamEvent next;
    private boolean isComplete;

    EventStream(Channel channel, ModelInferRequest request, Deadline deadline) {
        var withHeader =
                ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(STATUS_OF_ERRORS));
        var method = GRPCInferenceServiceGrpc.getModelStreamInferMethod();
        var options = CallOptions.DEFAULT.withDeadline(deadline);
        var attached = context.attach();
        try {
            // The method takes a stream of requests, of which this is the only one.
            answers = ClientCalls.blockingServerStreamingCall(withHeader, method, options, request);
        } finally {
            context.detach(attached);
        }
    }

    @Override
    public boolean hasNext() {
        if (next == null && !isComplete && !context.isCancelled()) {
            try {
                next = receive();
            } catch (StatusRuntimeException error) {
                close();
                throw Florence2Exception.of(error.getStatus(), error);
            } catch (Florence2Exception error) {
                close();
                throw error;
            }
        }
        return next != null;
    }

    @Override
    public StreamEvent next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        var event = next;
        next = null;
        return event;
    }

    /** Ends the stream. If it is not complete, its request is cancelled, on the server too. */
    @Override
    public void close() {
        next = null;
        context.cancel(null);
    }

    private StreamEvent receive() {
        if (!answers.hasNext()) {
            throw Florence2Exception.unexpected("the stream ended without a response");
        }
        var answer = answers.next();
        if (!answer.getErrorMessage().isEmpty()) {
            throw Florence2Exception.unexpected(answer.getErrorMessage());
        }
        var event = Tensors.response(answer.getInferResponse(), StreamEvent.parser());
        if (event.hasError()) {
            throw Florence2Exception.ofName(event.getError().getStatus(), event.getError().getMessage());
        }
        if (event.hasResponse()) {
            isComplete = true;
            drain();
        }
        return event;
    }

    /** Lets the call end by itself, so that Triton does not handle a cancellation while it cleans up. */
    private void drain() {
        try {
            answers.forEachRemaining(ignored -> {});
        } catch (StatusRuntimeException ignored) {
            // However the call ends, the answer is complete.
        }
    }
}
