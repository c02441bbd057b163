import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;

/**
 * ChangelogKTable BROKERS TOPIC COUNT: a KTable of a changelog in a Kafka Streams application. When it holds COUNT rows, prints
 * `row PARTITION KEY VALUE` of each, PARTITION where Streams itself would look for the key; ends with 1 when it never does.
 */
public class ChangelogKTable {
  private static final String STORE = "table";

  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("application.id", args[1] + "-ktable");
    settings.put("application.server", "here:1");
    settings.put("state.dir", Files.createTempDirectory("ktable").toString());
    settings.put("dsl.store.suppliers.class", "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers");
    settings.put("consumer.isolation.level", "read_committed");
    settings.put("processing.guarantee", "exactly_once_v2");
    settings.put("replication.factor", "1");
    StreamsBuilder builder = new StreamsBuilder();
    Materialized<String, String, KeyValueStore<Bytes, byte[]>> store =
        Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as(STORE)
            .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()).withLoggingDisabled();
    builder.table(args[1], store);
    long wanted = Long.parseLong(args[2]);
    long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
    CountDownLatch running = new CountDownLatch(1);
    try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
      streams.setStateListener((now, before) -> { if (now == KafkaStreams.State.RUNNING) running.countDown(); });
      streams.start();
      running.await();
      ReadOnlyKeyValueStore<String, String> rows =
          streams.store(StoreQueryParameters.fromNameAndType(STORE, QueryableStoreTypes.keyValueStore()));
      while (count(rows) != wanted) {
        if (System.nanoTime() > deadline) {
          System.out.println(count(rows) + " rows instead of " + wanted);
          System.exit(1);
        }
        Thread.sleep(20);
      }
      rows.all().forEachRemaining(row -> System.out.println("row "
          + streams.queryMetadataForKey(STORE, row.key, Serdes.String().serializer()).partition() + " " + row.key + " " + row.value));
    }
  }

  private static long count(ReadOnlyKeyValueStore<String, String> rows) {
    long count = 0;
    try (KeyValueIterator<String, String> all = rows.all()) {
      for (; all.hasNext(); all.next()) count++;
    }
    return count;
  }
}
