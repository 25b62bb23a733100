package florence2.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;
import static org.junit.Assume.assumeTrue;

import florence2.v1.Caption;
import florence2.v1.GenerationOptions;
import florence2.v1.Ocr;
import florence2.v1.TaskRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** Needs a server: FLORENCE2_SERVER is its host:port, and FLORENCE2_IMAGE the path of an image file. */
public final class ServerTest {
    private static final RequestOptions NINE_HUNDRED_TOKENS = RequestOptions.DEFAULT.withGeneration(
            GenerationOptions.newBuilder().setMinNewTokens(900).setNumBeams(1).build());
    private static final TaskRequest CAPTION =
            TaskRequest.newBuilder().setCaption(Caption.getDefaultInstance()).build();

    private ManagedChannel channel;
    private Florence2Client client;
    private byte[] image;

    @Before
    public void connect() throws IOException {
        var server = System.getenv("FLORENCE2_SERVER");
        assumeTrue("FLORENCE2_SERVER is not set", server != null);
        image = Files.readAllBytes(Path.of(System.getenv("FLORENCE2_IMAGE")));
        channel = channelTo(server);
        client = new Florence2Client(channel);
    }

    private static ManagedChannel channelTo(String server) {
        return Grpc.newChannelBuilder(server, InsecureChannelCredentials.create()).build();
    }

    @After
    public void disconnect() {
        if (channel != null) {
            channel.shutdownNow();
        }
    }

    @Test
    public void leavingAStreamCancelsItsRequest() {
        // The only request for this task, so that the server's metrics tell its outcome.
        var request = TaskRequest.newBuilder().setOcr(Ocr.getDefaultInstance()).build();
        var events = client.stream(image, request, NINE_HUNDRED_TOKENS);
        assertTrue(events.hasNext());
        events.close();
        assertFalse(events.hasNext());
    }

    @Test
    public void aStreamEndsAtItsDeadline() {
        var options = NINE_HUNDRED_TOKENS.withTimeout(Duration.ofMillis(300));
        try (var events = client.stream(image, CAPTION, options)) {
            assertThrows(Florence2Exception.DeadlineExceeded.class, () -> events.forEachRemaining(event -> {}));
        }
    }

    @Test
    public void anInvalidStreamHasATypedException() {
        var options = RequestOptions.DEFAULT.withGeneration(GenerationOptions.newBuilder().setNumBeams(9).build());
        try (var events = client.stream(image, CAPTION, options)) {
            var error = assertThrows(Florence2Exception.InvalidArgument.class, events::hasNext);
            assertEquals("generation.num_beams", error.field().orElseThrow());
        }
    }

    @Test
    public void aTruncatedAnswerIsAnException() {
        var options = RequestOptions.DEFAULT.withGeneration(GenerationOptions.newBuilder().setMaxNewTokens(4).build());
        var error = assertThrows(Florence2Exception.TruncatedAnswer.class, () -> client.detect(image, options));
        assertEquals(4, error.response().getUsage().getGeneratedTokens());
    }

    @Test
    public void anInterruptedThreadsRequestIsCancelled() {
        Thread.currentThread().interrupt();
        assertThrows(Florence2Exception.Cancelled.class, () -> client.detect(image, RequestOptions.DEFAULT));
        assertTrue(Thread.interrupted());
    }

    @Test
    public void aServerThatCannotBeReachedIsUnavailable() {
        var nowhere = channelTo("127.0.0.1:1");
        try {
            var lonely = new Florence2Client(nowhere);
            assertThrows(Florence2Exception.Unavailable.class, () -> lonely.detect(image, RequestOptions.DEFAULT));
        } finally {
            nowhere.shutdownNow();
        }
    }
}
