package florence2.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Parser;
import florence2.v1.TaskRequest;
import inference.GrpcService.ModelInferRequest;
import inference.GrpcService.ModelInferRequest.InferInputTensor;
import inference.GrpcService.ModelInferResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** Images, requests and responses in tensors of Triton. */
final class Tensors {
    private static final int LENGTH_BYTES = Integer.BYTES; // before each element of a BYTES tensor, little-endian

    private Tensors() {}

    /** Puts an image and a request into tensors, of shape [1, 1] for the model and [1] for its streams. */
    static ModelInferRequest request(String model, List<Long> shape, byte[] image, TaskRequest request) {
        return ModelInferRequest.newBuilder()
                .setModelName(model)
                .addInputs(tensor("IMAGE", shape))
                .addInputs(tensor("REQUEST", shape))
                .addRawInputContents(element(ByteString.copyFrom(image)))
                .addRawInputContents(element(request.toByteString()))
                .build();
    }

    private static InferInputTensor tensor(String name, List<Long> shape) {
        return InferInputTensor.newBuilder().setName(name).setDatatype("BYTES").addAllShape(shape).build();
    }

    /** Encodes the only element of a BYTES tensor. */
    static ByteString element(ByteString data) {
        var length = ByteBuffer.allocate(LENGTH_BYTES).order(ByteOrder.LITTLE_ENDIAN).putInt(data.size()).flip();
        return ByteString.copyFrom(length).concat(data);
    }

    /**
     * Decodes the tensor RESPONSE, which has one element.
     *
     * <p>The length is checked: protobuf may take it for a part of the message, and what follows for fields it does not
     * know.
     */
    static <T extends Message> T response(ModelInferResponse answer, Parser<T> parser) {
        if (answer.getOutputsCount() != 1
                || answer.getRawOutputContentsCount() != 1
                || !answer.getOutputs(0).getName().equals("RESPONSE")) {
            throw Florence2Exception.unexpected("the response is not one tensor RESPONSE");
        }
        var content = answer.getRawOutputContents(0);
        if (content.size() < LENGTH_BYTES || lengthIn(content) != content.size() - LENGTH_BYTES) {
            throw Florence2Exception.unexpected("the tensor RESPONSE is not one element with its length");
        }
        try {
            return parser.parseFrom(content.substring(LENGTH_BYTES));
        } catch (InvalidProtocolBufferException error) {
            throw Florence2Exception.unexpected("the tensor RESPONSE cannot be read: " + error.getMessage());
        }
    }

    private static int lengthIn(ByteString content) {
        return content.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).getInt();
    }
}
