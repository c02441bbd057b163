import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Codecs BROKERS COUNT (CODEC TO_WRITE TO_READ)...: writes COUNT records to the one topic, prints COUNT of the other, one per line. */
public class Codecs {
  public static void main(String[] args) throws Exception {
    int count = Integer.parseInt(args[1]);
    for (int at = 2; at < args.length; at += 3) {
      write(args[0], args[at], args[at + 1], count);
      for (ConsumerRecord<byte[], byte[]> record : read(args[0], args[at + 2], count)) {
        System.out.println(args[at] + " " + record.offset() + " " + text(record.key()) + " " + text(record.value())
            + " " + text(record.headers().lastHeader("h").value()));
      }
    }
  }

  static void write(String brokers, String codec, String topic, int count) throws Exception {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", brokers);
    settings.put("compression.type", codec);
    settings.put("linger.ms", "1000");
    settings.put("batch.size", "200000");
    settings.put("key.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
    settings.put("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
    try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
      for (int n = 0; n < count; n++) {
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, 0, bytes("key " + n), bytes("value " + n));
        record.headers().add("h", bytes("header " + n));
        producer.send(record);
      }
    }
  }

  static List<ConsumerRecord<byte[], byte[]>> read(String brokers, String topic, int count) {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", brokers);
    settings.put("isolation.level", "read_committed");
    settings.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    settings.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
      List<TopicPartition> partitions = List.of(new TopicPartition(topic, 0));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      for (long end = System.nanoTime() + 30_000_000_000L; records.size() < count && System.nanoTime() < end;) {
        consumer.poll(Duration.ofMillis(100)).forEach(records::add);
      }
    }
    return records;
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8).replace(' ', '_');
  }
}
