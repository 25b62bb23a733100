package florence2.client;

import florence2.v1.BoundingBox;
import florence2.v1.Detection;
import florence2.v1.FinishReason;
import florence2.v1.ObjectDetection;
import florence2.v1.PhraseGrounding;
import florence2.v1.RegionToDescription;
import florence2.v1.TaskRequest;
import florence2.v1.TaskResponse;
import florence2.v1.Text;
import inference.GRPCInferenceServiceGrpc;
import io.grpc.Channel;
import io.grpc.Deadline;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * A small client of Florence-2 on NVIDIA Triton.
 *
 * <p>Coordinates, in requests and in results, are pixels of the image as displayed: x to the right, y down. An image is
 * the content of an image file, such as a JPEG or a PNG. Threads may share a client. An interrupted thread's request is
 * cancelled, on the server too. Every method throws a {@link Florence2Exception} if its request fails.
 */
public final class Florence2Client {
    private static final String MODEL = "florence2";

    private final Channel channel;

    /**
     * A client of the server's model "florence2".
     *
     * @param channel a channel to Triton's gRPC port, which remains the caller's to shut down
     */
    public Florence2Client(Channel channel) {
        this.channel = channel;
    }

    /** Finds objects, with their category names. */
    public List<Detection> detect(byte[] image, RequestOptions options) {
        var task = TaskRequest.newBuilder().setObjectDetection(ObjectDetection.getDefaultInstance()).build();
        return detections(image, task, options);
    }

    /** Finds the phrases of a caption in the image. */
    public List<Detection> ground(byte[] image, String caption, RequestOptions options) {
        var grounding = PhraseGrounding.newBuilder().setCaption(caption);
        return detections(image, TaskRequest.newBuilder().setPhraseGrounding(grounding).build(), options);
    }

    /** Describes a region of the image, such as the bounding box of a detection. */
    public Text describeRegion(byte[] image, BoundingBox region, RequestOptions options) {
        var description = RegionToDescription.newBuilder().setRegion(region);
        var request = TaskRequest.newBuilder().setRegionToDescription(description).build();
        var response = complete(image, request, options);
        if (!response.hasTextResult()) {
            throw Florence2Exception.unexpected("the response has no text");
        }
        return response.getTextResult();
    }

    /**
     * Sends any request.
     *
     * @return the response, even one that was truncated at its length limit: check its finish reason
     */
    public TaskResponse run(byte[] image, TaskRequest request, RequestOptions options) {
        var deadline = deadlineOf(options);
        var message = Tensors.request(MODEL, List.of(1L, 1L), image, scheduled(request, options, deadline));
        try {
            var answer = GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadline(deadline).modelInfer(message);
            return Tensors.response(answer, TaskResponse.parser());
        } catch (StatusRuntimeException error) {
            throw Florence2Exception.of(error.getStatus(), error);
        }
    }

    /** Sends any request, and returns its events while it is answered. Close the stream. */
    public EventStream stream(byte[] image, TaskRequest request, RequestOptions options) {
        var deadline = deadlineOf(options);
        // A stream has no batch dimension.
        var shape = List.of(1L);
        var message = Tensors.request(MODEL + "_stream", shape, image, scheduled(request, options, deadline));
        return new EventStream(channel, message, deadline);
    }

    private static Deadline deadlineOf(RequestOptions options) {
        return Deadline.after(options.timeout().toNanos(), TimeUnit.NANOSECONDS);
    }

    /** gRPC's own deadline ends the call; the one in the request also ends a request that waits in the server. */
    private static TaskRequest scheduled(TaskRequest request, RequestOptions options, Deadline deadline) {
        var nanoseconds = Math.max(1, deadline.timeRemaining(TimeUnit.NANOSECONDS));
        return options.applyTo(request, nanoseconds / 1e9);
    }

    private List<Detection> detections(byte[] image, TaskRequest request, RequestOptions options) {
        var response = complete(image, request, options);
        if (!response.hasDetections()) {
            throw Florence2Exception.unexpected("the response has no detections");
        }
        return response.getDetections().getDetectionsList();
    }

    /** As {@link #run}, for answers of which a part is not enough. */
    private TaskResponse complete(byte[] image, TaskRequest request, RequestOptions options) {
        var response = run(image, request, options);
        if (response.getFinishReason() == FinishReason.FINISH_REASON_LENGTH) {
            throw new Florence2Exception.TruncatedAnswer(response);
        }
        return response;
    }
}
