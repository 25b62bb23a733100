package florence2.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import com.google.protobuf.ByteString;
import florence2.v1.GenerationOptions;
import florence2.v1.TaskRequest;
import florence2.v1.TaskResponse;
import inference.GrpcService.ModelInferResponse;
import inference.GrpcService.ModelInferResponse.InferOutputTensor;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import org.junit.Test;

public final class TensorsTest {
    @Test
    public void aResponseIsReadBehindItsLength() {
        var data = TaskResponse.newBuilder().setText("</s>A dog.</s>").build().toByteString();
        var content = Tensors.element(data);
        assertEquals("</s>A dog.</s>", Tensors.response(answerOf(content), TaskResponse.parser()).getText());
        var longer = content.concat(ByteString.copyFrom(new byte[1]));
        for (var wrong : List.of(ByteString.EMPTY, data, content.substring(0, 8), longer)) {
            var answer = answerOf(wrong);
            var parser = TaskResponse.parser();
            assertThrows(Florence2Exception.ServerFault.class, () -> Tensors.response(answer, parser));
        }
    }

    private static ModelInferResponse answerOf(ByteString content) {
        var output = InferOutputTensor.newBuilder().setName("RESPONSE").setDatatype("BYTES").addShape(1).addShape(1);
        return ModelInferResponse.newBuilder().addOutputs(output).addRawOutputContents(content).build();
    }

    @Test
    public void optionsAddToTheRequest() {
        var generation = GenerationOptions.newBuilder().setNumBeams(3).build();
        var request = TaskRequest.newBuilder().setPriority(2).setGeneration(generation).build();
        var options = RequestOptions.DEFAULT.withAdapter("counter");
        var sent = options.applyTo(request, 0.5);
        assertEquals(request.toBuilder().setAdapter("counter").setTimeoutSeconds(0.5).build(), sent);
        var urgent = options.withPriority(1).withGeneration(GenerationOptions.newBuilder().setMaxNewTokens(9).build());
        sent = urgent.applyTo(request, 0.5);
        assertEquals(1, sent.getPriority());
        assertEquals(generation.toBuilder().setMaxNewTokens(9).build(), sent.getGeneration());
    }

    @Test
    public void aTimeoutIsMoreThanZero() {
        assertThrows(IllegalArgumentException.class, () -> RequestOptions.DEFAULT.withTimeout(Duration.ZERO));
    }

    @Test
    public void theExceptionOfAStatus() {
        var invalid = (Florence2Exception.InvalidArgument)
                Florence2Exception.ofName("INVALID_ARGUMENT", "generation.num_beams: got 9, expected 1 to 8");
        assertEquals("generation.num_beams", invalid.field().orElseThrow());
        assertEquals("1 to 8", invalid.requirement().orElseThrow());
        assertEquals(Florence2Exception.Unavailable.class, classOf("UNAVAILABLE", "the queue is full"));
        var late = "deadline exceeded: the request waited for 1.000 s";
        assertEquals(Florence2Exception.DeadlineExceeded.class, classOf("UNAVAILABLE", late));
        assertEquals(Florence2Exception.Cancelled.class, classOf("CANCELLED", "context cancelled"));
        var fault = (Florence2Exception.ServerFault) Florence2Exception.ofName("NO_SUCH_STATUS", "?");
        assertEquals(Status.Code.UNKNOWN, fault.code());
    }

    private static Class<? extends Florence2Exception> classOf(String name, String message) {
        return Florence2Exception.ofName(name, message).getClass();
    }
}
