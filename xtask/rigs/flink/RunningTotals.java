// A DataStream job: flights and minutes of delay by carrier so far, one record out for each one in, exactly once.
// Run by `cargo xtask clients flink`; compiles against Flink 1.20 and 2.x alike.

import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

public class RunningTotals {
    static final int DEP_DELAY = 5;
    static final int CARRIER = 9;

    // BOOTSTRAP FROM TO PARALLELISM [NAMING]
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String to = arguments[2];
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setParallelism(Integer.parseInt(arguments[3]));
        KafkaSource<String> source = KafkaSource.<String>builder()
            .setBootstrapServers(bootstrap)
            .setTopics(arguments[1])
            .setGroupId(arguments[1])
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new SimpleStringSchema())
            .build();
        KafkaSinkBuilder<String> sink = KafkaSink.<String>builder()
            .setBootstrapServers(bootstrap)
            .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .setTransactionalIdPrefix(to)
            .setRecordSerializer(KafkaRecordSerializationSchema.<String>builder()
                .setTopic(to)
                .setKeySerializationSchema(new KeySchema())
                .setValueSerializationSchema(new SimpleStringSchema())
                .build());
        if (arguments.length > 4) {
            nameTransactions(sink, arguments[4]);
        }
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "flights").uid("flights")
            .keyBy(line -> line.split(",")[CARRIER])
            .process(new Totals()).uid("totals")
            .sinkTo(sink.build()).uid("output");
        environment.execute(to);
    }

    // The strategy is an enum that the connector for Flink 1.20 does not have yet.
    @SuppressWarnings({"unchecked", "rawtypes"})
    static void nameTransactions(KafkaSinkBuilder<String> sink, String naming) throws Exception {
        Class<?> strategy = Class.forName("org.apache.flink.connector.kafka.sink.TransactionNamingStrategy");
        Object value = Enum.valueOf((Class<Enum>) strategy, naming);
        KafkaSinkBuilder.class.getMethod("setTransactionNamingStrategy", strategy).invoke(sink, value);
    }

    static class KeySchema implements SerializationSchema<String> {
        @Override
        public byte[] serialize(String total) {
            return total.substring(0, total.indexOf(',')).getBytes(StandardCharsets.UTF_8);
        }
    }

    static class Totals extends KeyedProcessFunction<String, String, String> {
        private transient ValueState<Long> flights;
        private transient ValueState<Long> delay;

        @Override
        public void open(OpenContext context) {
            flights = getRuntimeContext().getState(new ValueStateDescriptor<>("flights", Long.class));
            delay = getRuntimeContext().getState(new ValueStateDescriptor<>("delay", Long.class));
        }

        @Override
        public void processElement(String line, Context context, Collector<String> out) throws Exception {
            String late = line.split(",")[DEP_DELAY];
            if (!late.equals("NA")) {
                delay.update((delay.value() == null ? 0 : delay.value()) + Long.parseLong(late));
            }
            flights.update((flights.value() == null ? 0 : flights.value()) + 1);
            // As SQL has it: the sum of nothing is null.
            String sum = delay.value() == null ? "NA" : delay.value().toString();
            out.collect(context.getCurrentKey() + "," + flights.value() + "," + sum);
        }
    }
}
