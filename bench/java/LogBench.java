import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache's client as a contestant: commands come as lines of JSON strings and numbers, each is answered with a line of JSON. */
public class LogBench {
  static final byte[] VALUE = "v".repeat(200).getBytes();
  static final byte[][] KEYS = new byte[10_000][];

  public static void main(String[] args) throws Exception {
    String brokers = args[0];
    for (int n = 0; n < KEYS.length; n++) KEYS[n] = ("key-" + n).getBytes();
    Properties settings = new Properties();
    settings.put("bootstrap.servers", brokers);
    settings.put("transactional.id", args[1]);
    // Large batches and a short linger: the only setting tried, not a tuned one; commits flush, so small ones need not linger.
    settings.put("batch.size", "1000000");
    settings.put("linger.ms", "5");
    settings.put("buffer.memory", "67108864");
    var cpu = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      producer.initTransactions();
      var input = new BufferedReader(new InputStreamReader(System.in));
      for (String line; (line = input.readLine()) != null; ) {
        String[] command = line.replaceAll("[\\[\\]\"\\s]", "").split(",");
        long cpuBefore = cpu.getProcessCpuTime();
        long startedAt = System.nanoTime();
        String figures = switch (command[0]) {
          case "produce" -> produce(producer, command[1], Integer.parseInt(command[2]), Integer.parseInt(command[3]));
          case "read" -> read(brokers, command[1], Integer.parseInt(command[2]));
          case "latency" -> latency(producer, command[1], command[2], Integer.parseInt(command[3]));
          default -> throw new IllegalArgumentException(line);
        };
        double seconds = (System.nanoTime() - startedAt) / 1e9;
        double cpuSeconds = (cpu.getProcessCpuTime() - cpuBefore) / 1e9;
        System.out.println("{\"seconds\":" + seconds + ",\"cpuSeconds\":" + cpuSeconds + figures + "}");
      }
    }
  }

  static String produce(KafkaProducer<byte[], byte[]> producer, String topic, int transactions, int per) {
    for (int n = 0; n < transactions; n++) {
      producer.beginTransaction();
      for (int i = 0; i < per; i++) producer.send(new ProducerRecord<>(topic, KEYS[(n * per + i) % KEYS.length], VALUE));
      producer.commitTransaction();
    }
    return "";
  }

  static String read(String brokers, String topic, int records) {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", brokers);
    settings.put("isolation.level", "read_committed");
    long bytes = 0;
    try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      List<TopicPartition> partitions = new ArrayList<>();
      consumer.partitionsFor(topic).forEach(of -> partitions.add(new TopicPartition(topic, of.partition())));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      for (int left = records; left > 0; ) {
        var batch = consumer.poll(Duration.ofSeconds(1));
        for (var record : batch) bytes += record.value().length;
        left -= batch.count();
      }
    }
    return ",\"bytes\":" + bytes;
  }

  static String latency(KafkaProducer<byte[], byte[]> producer, String topic, String groupId, int transactions) {
    var group = new ConsumerGroupMetadata(groupId);
    List<String> milliseconds = new ArrayList<>();
    for (int n = 0; n < transactions; n++) {
      long startedAt = System.nanoTime();
      producer.beginTransaction();
      producer.send(new ProducerRecord<>(topic, 0, KEYS[n % KEYS.length], VALUE));
      producer.sendOffsetsToTransaction(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(n)), group);
      producer.commitTransaction();
      milliseconds.add(Double.toString((System.nanoTime() - startedAt) / 1e6));
    }
    return ",\"milliseconds\":[" + String.join(",", milliseconds) + "]";
  }
}
