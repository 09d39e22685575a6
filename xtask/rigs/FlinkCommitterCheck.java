// Flink's committer against a broker: it ends transactions that another process began, by producer id and epoch alone, and
// reads each refusal as "try again", "lost, go on" or "restart the job". Prints `ok NAME` or `FAIL NAME: why` for each case.
// Run by `cargo xtask clients flink`; every case also holds on Apache Kafka itself (`--baseline`).

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.flink.connector.kafka.sink.internal.FlinkKafkaInternalProducer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidPidMappingException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class FlinkCommitterCheck {
    static final long LIMIT_MS = 60_000;
    static String bootstrap;
    static Admin admin;

    interface Case {
        void run() throws Exception;
    }

    // What a checkpoint keeps of a transaction.
    record Committable(String id, long producer, short epoch) {}

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        admin = Admin.create(properties);
        check("a transaction is committed by another producer, and again by a third", FlinkCommitterCheck::another);
        check("several of one writer are committed out of order", FlinkCommitterCheck::outOfOrder);
        check("one that was aborted cannot be committed", FlinkCommitterCheck::aborted);
        check("one that timed out cannot be committed", FlinkCommitterCheck::timedOut);
        check("one whose writer was started anew cannot be committed", FlinkCommitterCheck::fenced);
        check("one without records cannot be committed", FlinkCommitterCheck::empty);
        check("an id or a producer that nobody knows is refused as such", FlinkCommitterCheck::unknown);
        admin.close();
    }

    static void check(String name, Case body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            StackTraceElement at = null;
            for (StackTraceElement element : error.getStackTrace()) {
                if (at == null && element.getClassName().startsWith("FlinkCommitterCheck")) {
                    at = element;
                }
            }
            String text = String.valueOf(error).replace('\n', ' ');
            System.out.println("FAIL " + name + ": " + text + (at == null ? "" : " at line " + at.getLineNumber()));
        }
    }

    static void another() throws Exception {
        create("committer-another");
        Committable left = leave("committer-another", "committer-another", 3_600_000, "a", "b");
        same(read("committer-another", "read_uncommitted"), List.of("a", "b"));
        same(read("committer-another", "read_committed"), List.of());
        same(commit(left), null);
        await(left.id, TransactionState.COMPLETE_COMMIT);
        same(commit(left), null);
        same(read("committer-another", "read_committed"), List.of("a", "b"));
    }

    static void outOfOrder() throws Exception {
        create("committer-order");
        List<Committable> all = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            all.add(leave("committer-order", "committer-order-" + i, 3_600_000, "r" + i));
        }
        same(commit(all.get(2)), null);
        same(commit(all.get(0)), null);
        await(all.get(0).id, TransactionState.COMPLETE_COMMIT);
        // The second is open still, and what lies behind it must wait.
        same(read("committer-order", "read_committed"), List.of("r0"));
        same(commit(all.get(1)), null);
        await(all.get(1).id, TransactionState.COMPLETE_COMMIT);
        await(all.get(2).id, TransactionState.COMPLETE_COMMIT);
        same(read("committer-order", "read_committed"), List.of("r0", "r1", "r2"));
    }

    static void aborted() throws Exception {
        create("committer-aborted");
        Committable left = leave("committer-aborted", "committer-aborted", 3_600_000, "a");
        FlinkKafkaInternalProducer<String, String> producer = producer(left.id, 3_600_000);
        producer.resumeTransaction(left.producer, left.epoch);
        producer.abortTransaction();
        producer.close(Duration.ofSeconds(10));
        await(left.id, TransactionState.COMPLETE_ABORT);
        same(commit(left), InvalidTxnStateException.class);
        same(read("committer-aborted", "read_committed"), List.of());
    }

    static void timedOut() throws Exception {
        create("committer-late");
        Committable left = leave("committer-late", "committer-late", 1000, "a");
        await(left.id, TransactionState.COMPLETE_ABORT);
        same(commit(left), ProducerFencedException.class);
        same(read("committer-late", "read_committed"), List.of());
    }

    static void fenced() throws Exception {
        create("committer-fenced");
        Committable left = leave("committer-fenced", "committer-fenced", 3_600_000, "a");
        Committable next = leave("committer-fenced", "committer-fenced", 3_600_000, "b");
        same(next.producer == left.producer && next.epoch > left.epoch, true);
        same(commit(left), ProducerFencedException.class);
        same(commit(next), null);
        await(next.id, TransactionState.COMPLETE_COMMIT);
        same(read("committer-fenced", "read_committed"), List.of("b"));
    }

    static void empty() throws Exception {
        FlinkKafkaInternalProducer<String, String> writer = producer("committer-empty", 3_600_000);
        writer.initTransactions();
        Committable left = new Committable("committer-empty", writer.getProducerId(), writer.getEpoch());
        writer.close(Duration.ZERO);
        same(commit(left), InvalidTxnStateException.class);
    }

    static void unknown() throws Exception {
        create("committer-unknown");
        same(commit(new Committable("committer-nobody", 4711, (short) 0)), InvalidPidMappingException.class);
        Committable left = leave("committer-unknown", "committer-unknown", 3_600_000, "a");
        same(commit(new Committable(left.id, left.producer + 1000, left.epoch)), InvalidPidMappingException.class);
        same(commit(new Committable(left.id, left.producer, (short) (left.epoch + 1))), ProducerFencedException.class);
        // None of them touched it.
        same(commit(left), null);
        await(left.id, TransactionState.COMPLETE_COMMIT);
        same(read("committer-unknown", "read_committed"), List.of("a"));
    }

    // Writes records in a transaction and goes away as a killed writer does, with everything flushed and nothing decided.
    static Committable leave(String topic, String id, int timeout, String... values) throws Exception {
        FlinkKafkaInternalProducer<String, String> writer = producer(id, timeout);
        writer.initTransactions();
        writer.beginTransaction();
        for (String value : values) {
            writer.send(new ProducerRecord<>(topic, value));
        }
        writer.flush();
        Committable left = new Committable(id, writer.getProducerId(), writer.getEpoch());
        writer.close(Duration.ZERO);
        return left;
    }

    // What the committer does; gives the class of its failure.
    static Class<?> commit(Committable left) {
        try (FlinkKafkaInternalProducer<String, String> committer = producer(left.id, 3_600_000)) {
            committer.resumeTransaction(left.producer, left.epoch);
            committer.commitTransaction();
            return null;
        } catch (Exception error) {
            return error.getClass();
        }
    }

    static FlinkKafkaInternalProducer<String, String> producer(String id, int timeout) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.serializer", StringSerializer.class.getName());
        properties.put("value.serializer", StringSerializer.class.getName());
        properties.put("transaction.timeout.ms", timeout);
        return new FlinkKafkaInternalProducer<>(properties, id);
    }

    // Everything up to where such a reader may go now.
    static List<String> read(String topic, String isolation) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("isolation.level", isolation);
        TopicPartition partition = new TopicPartition(topic, 0);
        List<String> values = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            consumer.seekToBeginning(List.of(partition));
            long deadline = System.currentTimeMillis() + LIMIT_MS;
            while (consumer.position(partition) < end && System.currentTimeMillis() < deadline) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    values.add(record.value());
                }
            }
            same(consumer.position(partition) >= end, true);
        }
        return values;
    }

    static void await(String id, TransactionState state) throws Exception {
        long deadline = System.currentTimeMillis() + LIMIT_MS;
        TransactionState seen = null;
        while (System.currentTimeMillis() < deadline) {
            seen = admin.describeTransactions(List.of(id)).description(id).get().state();
            if (seen == state) {
                return;
            }
            Thread.sleep(20);
        }
        throw new AssertionError(id + " is " + seen + ", not " + state);
    }

    static void create(String topic) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
    }

    static void same(Object found, Object expected) {
        if (found == null ? expected != null : !found.equals(expected)) {
            throw new AssertionError("found " + found + ", expected " + expected);
        }
    }
}
