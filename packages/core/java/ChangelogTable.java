import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.TopicPartition;

/**
 * ChangelogTable BROKERS TOPIC: folds a changelog as a KTable does, committed records only, to its end. Prints `row PARTITION KEY VALUE` of what is left,
 * `deleted KEY` for each tombstone, and `misplaced KEY` where Java would have chosen another partition.
 */
public class ChangelogTable {
  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("isolation.level", "read_committed");
    settings.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    settings.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    Map<String, String> rows = new TreeMap<>();
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
      List<TopicPartition> partitions =
          consumer.partitionsFor(args[1]).stream().map(of -> new TopicPartition(args[1], of.partition())).toList();
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = new HashMap<>(consumer.endOffsets(partitions));
      while (partitions.stream().anyMatch(of -> consumer.position(of) < ends.get(of))) {
        consumer.poll(Duration.ofMillis(100)).forEach(record -> {
          String key = new String(record.key(), StandardCharsets.UTF_8);
          if (BuiltInPartitioner.partitionForKey(record.key(), partitions.size()) != record.partition()) {
            System.out.println("misplaced " + key);
          }
          if (record.value() == null) {
            rows.remove(key);
            System.out.println("deleted " + key);
          } else {
            rows.put(key, record.partition() + " " + key + " " + new String(record.value(), StandardCharsets.UTF_8));
          }
        });
      }
    }
    rows.values().forEach(row -> System.out.println("row " + row));
  }
}
