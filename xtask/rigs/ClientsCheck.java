// Apache Kafka's Java clients against a broker: prints `ok NAME` or `FAIL NAME: why` for each case.
// Run by `cargo xtask clients`; every case also holds on Apache Kafka itself (`--baseline`).

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class ClientsCheck {
    static String bootstrap;
    static Admin admin;
    static final Duration POLL = Duration.ofMillis(500);
    static final long LIMIT_MS = 60_000;

    interface Case {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        bootstrap = arguments[0];
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        admin = Admin.create(properties);
        check("topics are created, described, grown and refused", ClientsCheck::topics);
        check("configs are described with sources, and changed one by one", ClientsCheck::configs);
        for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
            check("an idempotent producer's order holds over 20,000 records, " + codec, () -> order(codec));
        }
        check("a record over the limit is refused and the next goes on", ClientsCheck::tooLarge);
        check("offsets by time, ends, and a position out of range", ClientsCheck::offsets);
        check("read-committed sees committed records only, in order", ClientsCheck::transactions);
        check("offsets sent in a transaction move with it or not at all", ClientsCheck::offsetsInTransaction);
        check("a second producer fences the first", ClientsCheck::fencing);
        check("open transactions are listed, described and seen in producer states", ClientsCheck::openTransactions);
        check("a range group rebalances without loss", () -> group("range"));
        check("a cooperative group rebalances without loss", () -> group("cooperative"));
        check("a static member comes back without a rebalance", ClientsCheck::staticMember);
        check("groups are listed, described, moved and deleted", ClientsCheck::groupsByAdmin);
        check("records are deleted up to an offset", ClientsCheck::deleteRecords);
        check("a deleted topic is gone, and its name free again", ClientsCheck::deleteTopic);
        admin.close();
    }

    static void check(String name, Case body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            StackTraceElement at = null;
            for (StackTraceElement element : error.getStackTrace()) {
                if (element.getClassName().startsWith("ClientsCheck")) {
                    at = element;
                    break;
                }
            }
            String text = String.valueOf(error).replace('\n', ' ');
            System.out.println("FAIL " + name + ": " + text + (at == null ? "" : " at line " + at.getLineNumber()));
        }
    }

    static void same(Object found, Object expected) {
        if (!found.equals(expected)) {
            throw new AssertionError("found " + shorten(found) + ", expected " + shorten(expected));
        }
    }

    static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() > 300 ? text.substring(0, 300) + "…" : text;
    }

    /** The cause with which a future fails. */
    static Class<?> failure(Future<?> future) throws Exception {
        try {
            future.get();
            return null;
        } catch (ExecutionException error) {
            return error.getCause().getClass();
        }
    }

    static void create(String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
    }

    static KafkaProducer<String, String> producer(Map<String, Object> more) {
        Map<String, Object> properties = new HashMap<>(more);
        properties.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Map<String, Object> more) {
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.putAll(more);
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    /** Reads a partition from the beginning up to where it ends now for this isolation. */
    static List<String> read(String topic, int partition, String isolation) {
        List<String> values = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("isolation.level", isolation))) {
            TopicPartition tp = new TopicPartition(topic, partition);
            consumer.assign(List.of(tp));
            consumer.seekToBeginning(List.of(tp));
            long end = consumer.endOffsets(List.of(tp)).get(tp);
            long limit = System.currentTimeMillis() + LIMIT_MS;
            while (consumer.position(tp) < end) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError("stuck at " + consumer.position(tp) + " of " + end);
                }
                for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                    values.add(record.value());
                }
            }
        }
        return values;
    }

    /** What is committed, once no transaction is open there: a commit is acknowledged before its marker stands. */
    static List<String> readSettled(String topic, int partition) throws InterruptedException {
        TopicPartition tp = new TopicPartition(topic, partition);
        long limit = System.currentTimeMillis() + LIMIT_MS;
        try (var committed = consumer(Map.of("isolation.level", "read_committed")); var all = consumer(Map.of())) {
            while (!committed.endOffsets(List.of(tp)).equals(all.endOffsets(List.of(tp)))) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError("a transaction stays open in " + tp);
                }
                Thread.sleep(10);
            }
        }
        return read(topic, partition, "read_committed");
    }

    static void topics() throws Exception {
        create("java-topics", 2);
        var description = admin.describeTopics(List.of("java-topics")).allTopicNames().get().get("java-topics");
        same(description.partitions().size(), 2);
        same(description.isInternal(), false);
        var node = admin.describeCluster().nodes().get().iterator().next();
        same(description.partitions().get(0).leader().id(), node.id());
        same(description.partitions().get(0).isr().get(0).id(), node.id());
        var again = admin.createTopics(List.of(new NewTopic("java-topics", 2, (short) 1))).all();
        same(failure(again), TopicExistsException.class);
        var bad = admin.createTopics(List.of(new NewTopic("not a name", 1, (short) 1))).all();
        same(failure(bad), InvalidTopicException.class);
        var config = new NewTopic("java-bad", 1, (short) 1).configs(Map.of("retention.ms", "soon"));
        same(failure(admin.createTopics(List.of(config)).all()), InvalidConfigurationException.class);
        same(failure(admin.describeTopics(List.of("java-missing")).allTopicNames()),
                UnknownTopicOrPartitionException.class);
        admin.createPartitions(Map.of("java-topics", NewPartitions.increaseTo(4))).all().get();
        description = admin.describeTopics(List.of("java-topics")).allTopicNames().get().get("java-topics");
        same(description.partitions().size(), 4);
        same(admin.listTopics().names().get().contains("java-topics"), true);
    }

    static void configs() throws Exception {
        create("java-configs", 1);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, "java-configs");
        AlterConfigOp set =
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SET);
        AlterConfigOp append =
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "delete"), AlterConfigOp.OpType.APPEND);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        same(config.get("cleanup.policy").value(), "compact");
        same(config.get("cleanup.policy").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        same(config.get("retention.ms").value(), "604800000");
        same(config.get("retention.ms").isDefault(), true);
        same(config.get("min.insync.replicas").value(), "1");
        same(config.get("max.message.bytes").value(), "1048588");
        same(config.get("segment.bytes").value(), "1073741824");
        admin.incrementalAlterConfigs(Map.of(resource, List.of(append))).all().get();
        config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        same(new TreeSet<>(List.of(config.get("cleanup.policy").value().split(","))).toString(), "[compact, delete]");
        AlterConfigOp unset =
                new AlterConfigOp(new ConfigEntry("cleanup.policy", null), AlterConfigOp.OpType.DELETE);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(unset))).all().get();
        config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        same(config.get("cleanup.policy").value(), "delete");
        AlterConfigOp bad = new AlterConfigOp(new ConfigEntry("no.such.config", "1"), AlterConfigOp.OpType.SET);
        same(failure(admin.incrementalAlterConfigs(Map.of(resource, List.of(bad))).all()),
                InvalidConfigurationException.class);
    }

    static void order(String codec) throws Exception {
        String topic = "java-order-" + codec;
        create(topic, 3);
        int records = 20_000;
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = producer(Map.of("compression.type", codec, "batch.size", 4096, "linger.ms", 1))) {
            for (int i = 0; i < records; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, i % 3, "k" + i, "v" + i)));
            }
        }
        for (int partition = 0; partition < 3; partition++) {
            List<String> expected = new ArrayList<>();
            for (int i = partition; i < records; i += 3) {
                same(sent.get(i).get().offset(), (long) expected.size());
                expected.add("v" + i);
            }
            same(read(topic, partition, "read_uncommitted"), expected);
        }
    }

    static void tooLarge() throws Exception {
        create("java-large", 1);
        try (var producer = producer(Map.of("max.request.size", 10_000_000))) {
            var large = producer.send(new ProducerRecord<>("java-large", "x".repeat(2_000_000)));
            same(failure(large), RecordTooLargeException.class);
            same(producer.send(new ProducerRecord<>("java-large", "small")).get().offset(), 0L);
        }
        same(read("java-large", 0, "read_uncommitted"), List.of("small"));
    }

    static void offsets() throws Exception {
        create("java-offsets", 1);
        TopicPartition tp = new TopicPartition("java-offsets", 0);
        try (var producer = producer(Map.of())) {
            for (long time : new long[] {1000, 3000, 2000, 5000, 4000}) {
                producer.send(new ProducerRecord<>("java-offsets", 0, time, null, "at " + time)).get();
            }
        }
        try (var consumer = consumer(Map.of("auto.offset.reset", "none"))) {
            for (long[] ask : new long[][] {{0, 0}, {1000, 0}, {1001, 1}, {2500, 1}, {3001, 3}, {5000, 3}}) {
                var found = consumer.offsetsForTimes(Map.of(tp, ask[0])).get(tp);
                same(found.offset(), ask[1]);
                same(found.timestamp() >= ask[0], true);
            }
            same(consumer.offsetsForTimes(Map.of(tp, 5001L)).get(tp) == null, true);
            same(consumer.beginningOffsets(List.of(tp)).get(tp), 0L);
            same(consumer.endOffsets(List.of(tp)).get(tp), 5L);
            consumer.assign(List.of(tp));
            consumer.seek(tp, 99);
            try {
                for (long limit = System.currentTimeMillis() + LIMIT_MS; System.currentTimeMillis() < limit; ) {
                    consumer.poll(POLL);
                }
                throw new AssertionError("a position past the end was accepted");
            } catch (OffsetOutOfRangeException expected) {
                same(expected.offsetOutOfRangePartitions(), Map.of(tp, 99L));
            }
        }
        ListOffsetsResultInfo highest =
                admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp).get();
        same(highest.offset() + "@" + highest.timestamp(), "3@5000");
    }

    static void transactions() throws Exception {
        create("java-transactions", 2);
        List<String> committed = new ArrayList<>();
        List<String> all = new ArrayList<>();
        try (var producer = producer(Map.of("transactional.id", "java-transactions"))) {
            producer.initTransactions();
            for (int round = 0; round < 20; round++) {
                producer.beginTransaction();
                List<String> values = new ArrayList<>();
                for (int i = 0; i < 10; i++) {
                    String value = round + "." + i;
                    values.add(value);
                    producer.send(new ProducerRecord<>("java-transactions", 0, null, value));
                    producer.send(new ProducerRecord<>("java-transactions", 1, null, value));
                }
                producer.flush();
                all.addAll(values);
                if (round % 3 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    committed.addAll(values);
                }
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("java-transactions", 0, null, "open"));
            producer.flush();
            same(read("java-transactions", 0, "read_committed"), committed);
            all.add("open");
            same(read("java-transactions", 0, "read_uncommitted"), all);
            producer.commitTransaction();
        }
        same(readSettled("java-transactions", 1), committed);
        committed.add("open");
        same(readSettled("java-transactions", 0), committed);
    }

    static void offsetsInTransaction() throws Exception {
        create("java-in", 1);
        create("java-out", 1);
        TopicPartition in = new TopicPartition("java-in", 0);
        List<String> expected = new ArrayList<>();
        try (var producer = producer(Map.of())) {
            for (int i = 0; i < 100; i++) {
                producer.send(new ProducerRecord<>("java-in", "r" + i));
                expected.add("copy of r" + i);
            }
        }
        // Each round copies what the group has not committed yet; every second one aborts.
        long limit = System.currentTimeMillis() + LIMIT_MS;
        for (int round = 0; read("java-out", 0, "read_committed").size() < 100; round++) {
            if (System.currentTimeMillis() > limit) {
                throw new AssertionError("no end of rounds");
            }
            try (var consumer = consumer(Map.of("group.id", "java-copier", "max.poll.records", 15));
                    var producer = producer(Map.of("transactional.id", "java-copier"))) {
                producer.initTransactions();
                consumer.subscribe(List.of("java-in"));
                List<ConsumerRecord<String, String>> records = new ArrayList<>();
                while (records.isEmpty() && System.currentTimeMillis() < limit) {
                    consumer.poll(POLL).forEach(records::add);
                }
                producer.beginTransaction();
                for (var record : records) {
                    producer.send(new ProducerRecord<>("java-out", 0, null, "copy of " + record.value()));
                }
                long next = records.get(records.size() - 1).offset() + 1;
                producer.sendOffsetsToTransaction(
                        Map.of(in, new OffsetAndMetadata(next)), consumer.groupMetadata());
                if (round % 2 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        same(read("java-out", 0, "read_committed"), expected);
        var offsets = admin.listConsumerGroupOffsets("java-copier").partitionsToOffsetAndMetadata().get();
        same(offsets.get(in).offset(), 100L);
    }

    static void fencing() throws Exception {
        create("java-fencing", 1);
        try (var first = producer(Map.of("transactional.id", "java-fencing"));
                var second = producer(Map.of("transactional.id", "java-fencing"))) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>("java-fencing", 0, null, "of the first")).get();
            second.initTransactions();
            second.beginTransaction();
            second.send(new ProducerRecord<>("java-fencing", 0, null, "of the second")).get();
            try {
                first.commitTransaction();
                throw new AssertionError("a fenced producer committed");
            } catch (ProducerFencedException expected) {
                second.commitTransaction();
            }
        }
        same(readSettled("java-fencing", 0), List.of("of the second"));
    }

    static void openTransactions() throws Exception {
        create("java-open", 1);
        TopicPartition tp = new TopicPartition("java-open", 0);
        try (var producer = producer(Map.of("transactional.id", "java-open"))) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("java-open", 0, null, "x")).get();
            TransactionDescription described =
                    admin.describeTransactions(List.of("java-open")).all().get().get("java-open");
            same(described.state(), TransactionState.ONGOING);
            same(described.topicPartitions(), Set.of(tp));
            ProducerState state =
                    admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers().get(0);
            same(state.producerId(), described.producerId());
            same(state.producerEpoch(), described.producerEpoch());
            same(state.lastSequence(), 0);
            same(state.currentTransactionStartOffset().getAsLong(), 0L);
            boolean listed = admin.listTransactions().all().get().stream()
                    .anyMatch(one -> one.transactionalId().equals("java-open")
                            && one.state() == TransactionState.ONGOING);
            same(listed, true);
            producer.commitTransaction();
            // A commit answers once it is decided; its markers, and then the end, come right behind.
            do {
                described = admin.describeTransactions(List.of("java-open")).all().get().get("java-open");
            } while (described.state() == TransactionState.PREPARE_COMMIT);
            state = admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers().get(0);
            same(state.currentTransactionStartOffset().isPresent(), false);
            same(described.state(), TransactionState.COMPLETE_COMMIT);
        }
    }

    /** Two members, then one: every record is read by one of them, and at the end one member has all partitions. */
    static void group(String assignor) throws Exception {
        String topic = "java-group-" + assignor;
        create(topic, 6);
        String name = assignor.equals("range") ? "RangeAssignor" : "CooperativeStickyAssignor";
        Map<String, Object> settings = Map.of("group.id", topic,
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + name,
                "session.timeout.ms", 10_000, "heartbeat.interval.ms", 500);
        Set<String> expected = new TreeSet<>();
        try (var producer = producer(Map.of())) {
            for (int i = 0; i < 600; i++) {
                producer.send(new ProducerRecord<>(topic, i % 6, null, "v" + i));
                expected.add("v" + i);
            }
        }
        Set<String> seen = new TreeSet<>();
        long limit = System.currentTimeMillis() + LIMIT_MS;
        var first = consumer(settings);
        try (var second = consumer(settings)) {
            first.subscribe(List.of(topic));
            second.subscribe(List.of(topic));
            while (first.assignment().size() != 3 || second.assignment().size() != 3 || seen.size() < 600) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError(first.assignment() + " and " + second.assignment() + ", " + seen.size());
                }
                for (var member : List.of(first, second)) {
                    member.poll(Duration.ofMillis(100)).forEach(record -> seen.add(record.value()));
                }
            }
            same(seen, expected);
            Set<TopicPartition> both = new HashSet<>(first.assignment());
            both.addAll(second.assignment());
            same(both.size(), 6);
            first.commitSync();
            second.commitSync();
            first.close();
            while (second.assignment().size() != 6) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError("left with " + second.assignment());
                }
                for (var record : second.poll(Duration.ofMillis(100))) {
                    throw new AssertionError("read again: " + record.value());
                }
            }
        }
    }

    static void staticMember() throws Exception {
        create("java-static", 2);
        Map<String, Object> settings = Map.of("group.id", "java-static", "session.timeout.ms", 30_000);
        List<String> events = new ArrayList<>();
        ConsumerRebalanceListener listener = new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                events.add("revoked " + partitions.size());
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                events.add("assigned " + partitions.size());
            }
        };
        Map<String, Object> one = new HashMap<>(settings);
        one.put("group.instance.id", "one");
        Map<String, Object> two = new HashMap<>(settings);
        two.put("group.instance.id", "two");
        long limit = System.currentTimeMillis() + LIMIT_MS;
        try (var other = consumer(two)) {
            var member = consumer(one);
            other.subscribe(List.of("java-static"), listener);
            member.subscribe(List.of("java-static"));
            while (member.assignment().size() != 1 || other.assignment().size() != 1) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError("assigned " + member.assignment() + " and " + other.assignment());
                }
                member.poll(Duration.ofMillis(100));
                other.poll(Duration.ofMillis(100));
            }
            Set<TopicPartition> before = member.assignment();
            int happened = events.size();
            member.close();
            var back = consumer(one);
            back.subscribe(List.of("java-static"));
            while (back.assignment().isEmpty()) {
                if (System.currentTimeMillis() > limit) {
                    throw new AssertionError("the member got nothing back");
                }
                back.poll(Duration.ofMillis(100));
                other.poll(Duration.ofMillis(100));
            }
            same(back.assignment(), before);
            same(events.size(), happened);
            back.close();
        }
    }

    static void groupsByAdmin() throws Exception {
        create("java-admin", 1);
        TopicPartition tp = new TopicPartition("java-admin", 0);
        try (var producer = producer(Map.of())) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>("java-admin", "v" + i));
            }
        }
        long limit = System.currentTimeMillis() + LIMIT_MS;
        try (var consumer = consumer(Map.of("group.id", "java-admin", "client.id", "java-member"))) {
            consumer.subscribe(List.of("java-admin"));
            int seen = 0;
            while (seen < 10 && System.currentTimeMillis() < limit) {
                seen += consumer.poll(POLL).count();
            }
            consumer.commitSync();
            var described = admin.describeConsumerGroups(List.of("java-admin")).all().get().get("java-admin");
            same(described.groupState().toString(), "Stable");
            same(described.partitionAssignor(), "range");
            same(described.members().size(), 1);
            var member = described.members().iterator().next();
            same(member.clientId(), "java-member");
            same(member.assignment().topicPartitions(), Set.of(tp));
            same(failure(admin.deleteConsumerGroups(List.of("java-admin")).all()), GroupNotEmptyException.class);
        }
        boolean listed =
                admin.listGroups().all().get().stream().anyMatch(one -> one.groupId().equals("java-admin"));
        same(listed, true);
        admin.alterConsumerGroupOffsets("java-admin", Map.of(tp, new OffsetAndMetadata(4, Optional.empty(), "moved")))
                .all().get();
        var offsets = admin.listConsumerGroupOffsets("java-admin").partitionsToOffsetAndMetadata().get();
        same(offsets.get(tp).offset() + " " + offsets.get(tp).metadata(), "4 moved");
        try (var consumer = consumer(Map.of("group.id", "java-admin"))) {
            consumer.assign(List.of(tp));
            List<String> values = new ArrayList<>();
            while (values.size() < 6 && System.currentTimeMillis() < limit) {
                consumer.poll(POLL).forEach(record -> values.add(record.value()));
            }
            same(values, List.of("v4", "v5", "v6", "v7", "v8", "v9"));
        }
        admin.deleteConsumerGroupOffsets("java-admin", Set.of(tp)).all().get();
        same(admin.listConsumerGroupOffsets("java-admin").partitionsToOffsetAndMetadata().get(), Map.of());
        // A group without offsets and members goes by itself; one with an offset is deleted.
        admin.alterConsumerGroupOffsets("java-admin-2", Map.of(tp, new OffsetAndMetadata(1))).all().get();
        admin.deleteConsumerGroups(List.of("java-admin-2")).all().get();
        same(admin.listConsumerGroupOffsets("java-admin-2").partitionsToOffsetAndMetadata().get(), Map.of());
    }

    static void deleteRecords() throws Exception {
        create("java-delete", 1);
        TopicPartition tp = new TopicPartition("java-delete", 0);
        try (var producer = producer(Map.of())) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>("java-delete", "v" + i)).get();
            }
        }
        var low = admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(7))).lowWatermarks().get(tp).get();
        same(low.lowWatermark(), 7L);
        same(read("java-delete", 0, "read_uncommitted"), List.of("v7", "v8", "v9"));
        low = admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(-1))).lowWatermarks().get(tp).get();
        same(low.lowWatermark(), 10L);
    }

    static void deleteTopic() throws Exception {
        create("java-gone", 1);
        try (var producer = producer(Map.of())) {
            producer.send(new ProducerRecord<>("java-gone", "old")).get();
        }
        admin.deleteTopics(List.of("java-gone")).all().get();
        same(failure(admin.deleteTopics(List.of("java-gone")).all()), UnknownTopicOrPartitionException.class);
        create("java-gone", 1);
        try (var producer = producer(Map.of())) {
            same(producer.send(new ProducerRecord<>("java-gone", "new")).get().offset(), 0L);
        }
        same(read("java-gone", 0, "read_uncommitted"), List.of("new"));
    }
}
