package florence2.scene;

import florence2.client.Florence2Client;
import florence2.client.Florence2Exception;
import florence2.client.RequestOptions;
import florence2.v1.BoundingBox;
import florence2.v1.Detection;
import florence2.v1.GenerationOptions;
import florence2.v1.OcrWithRegion;
import florence2.v1.TaskRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;

/** Shows the client: a few requests about a drawing, a stream, an error and a deadline. */
public final class Scene {
    private static final String CAPTION = "A red circle, a green triangle and a blue square.";

    private final Florence2Client client;
    private final byte[] image;

    private Scene(Florence2Client client, byte[] image) {
        this.client = client;
        this.image = image;
    }

    /**
     * Sends the requests and prints the answers.
     *
     * @param arguments host:port of Triton's gRPC port, and the path of an image file
     */
    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            System.err.println("usage: Scene HOST:PORT IMAGE");
            System.exit(2);
        }
        var image = Files.readAllBytes(Path.of(arguments[1]));
        // Without encryption. For TLS: TlsChannelCredentials.create().
        var channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        try {
            var scene = new Scene(new Florence2Client(channel), image);
            scene.showObjects();
            scene.showPhrases();
            scene.showStream();
            scene.showError();
            scene.showDeadline();
        } finally {
            channel.shutdownNow();
        }
    }

    private void showObjects() {
        for (var object : client.detect(image, RequestOptions.DEFAULT)) {
            var text = client.describeRegion(image, object.getBoundingBox(), RequestOptions.DEFAULT);
            print("object %s: %s", shown(object), text.getText());
        }
    }

    private void showPhrases() {
        var greedy = GenerationOptions.newBuilder().setNumBeams(1).build();
        for (var phrase : client.ground(image, CAPTION, RequestOptions.DEFAULT.withGeneration(greedy))) {
            print("phrase %s", shown(phrase));
        }
    }

    private void showStream() {
        var request = TaskRequest.newBuilder().setOcrWithRegion(OcrWithRegion.getDefaultInstance()).build();
        try (var events = client.stream(image, request, RequestOptions.DEFAULT)) {
            while (events.hasNext()) {
                var event = events.next();
                if (event.hasTextRegion()) {
                    var corner = event.getTextRegion().getQuad().getCorners(0);
                    print("stream %s %.2f %.2f", event.getTextRegion().getText(), corner.getX(), corner.getY());
                } else if (event.hasResponse()) {
                    print("stream complete: %d tokens", event.getResponse().getUsage().getGeneratedTokens());
                }
            }
        }
    }

    /** Describes a region outside the image. */
    private void showError() {
        var outside = BoundingBox.newBuilder().setXMax(9999).setYMax(10).build();
        try {
            client.describeRegion(image, outside, RequestOptions.DEFAULT);
        } catch (Florence2Exception.InvalidArgument error) {
            var requirement = error.requirement().orElseThrow();
            print("error %s is %s: expected %s", error.field().orElseThrow(), error.value().orElseThrow(), requirement);
            return;
        }
        throw new IllegalStateException("a region outside the image was described");
    }

    /** Allows a request a millisecond. */
    private void showDeadline() {
        try {
            client.detect(image, RequestOptions.DEFAULT.withTimeout(Duration.ofMillis(1)));
        } catch (Florence2Exception.DeadlineExceeded error) {
            print("deadline exceeded");
            return;
        }
        throw new IllegalStateException("there was an answer within a millisecond");
    }

    private static String shown(Detection found) {
        var box = found.getBoundingBox();
        return String.format(
                Locale.ROOT,
                "%s [%.2f %.2f %.2f %.2f] confidence %.2f",
                found.getLabel(), box.getXMin(), box.getYMin(), box.getXMax(), box.getYMax(), found.getConfidence());
    }

    private static void print(String format, Object... values) {
        System.out.println(String.format(Locale.ROOT, format, values));
    }
}
