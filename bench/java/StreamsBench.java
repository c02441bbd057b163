import com.fasterxml.jackson.annotation.*;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Kafka Streams as a contestant: StreamsBench agg TOPIC N THREADS CACHE OFFSETS (committed in all when N records are done: markers count) | lat RATE SECONDS THREADS CACHE | restore-fill TOPIC N | restore TOPIC N THREADS.
 * Prints one line of JSON.
 */
public class StreamsBench {
  static final String BOOT = System.getenv("BOOTSTRAP");
  static final ObjectMapper M = new ObjectMapper();
  static final int PARTS = 4;

  @JsonIgnoreProperties(ignoreUnknown = true)
  public static class In { public String id; public long amount; public long ts; }
  public static class Agg { public long sum; public long count; public long ts; }

  // ---------- helpers ----------
  static double cpu(long pid) throws Exception {
    String s = Files.readString(Path.of("/proc/" + pid + "/stat"));
    String[] f = s.substring(s.lastIndexOf(')') + 2).split(" ");
    return (Long.parseLong(f[11]) + Long.parseLong(f[12])) / 100.0;
  }
  static double selfCpu() throws Exception { return cpu(ProcessHandle.current().pid()); }
  static double brokerCpu() throws Exception { String p = System.getenv("BROKER_PID"); return p == null ? 0 : cpu(Long.parseLong(p)); }
  static long rssMb() throws Exception {
    for (String l : Files.readAllLines(Path.of("/proc/self/status"))) if (l.startsWith("VmHWM")) return Long.parseLong(l.replaceAll("\\D", "")) / 1024;
    return 0;
  }
  static double r(double d) { return Math.round(d * 100) / 100.0; }
  static void out(Object... kv) throws Exception {
    Map<String, Object> m = new LinkedHashMap<>();
    for (int i = 0; i < kv.length; i += 2) m.put((String) kv[i], kv[i + 1]);
    System.out.println(M.writeValueAsString(m));
  }
  static Properties base() { Properties p = new Properties(); p.put("bootstrap.servers", BOOT); return p; }
  static void fresh(String... topics) throws Exception {
    try (Admin a = Admin.create(base())) {
      Set<String> have = a.listTopics().names().get();
      List<String> del = new ArrayList<>(); for (String t : topics) if (have.contains(t)) del.add(t);
      if (!del.isEmpty()) { a.deleteTopics(del).all().get(); Thread.sleep(1500); }
      List<NewTopic> nt = new ArrayList<>(); for (String t : topics) nt.add(new NewTopic(t, PARTS, (short) 1));
      a.createTopics(nt).all().get(); Thread.sleep(500);
    }
  }
  static final String PAD = "x".repeat(300);
  static String key(long i) { return String.format("k%08d", i); }
  static byte[] value(String key, long seq, long ts, int size) {
    StringBuilder b = new StringBuilder(size + 8).append("{\"id\":\"").append(key).append("\",\"amount\":").append(seq % 100)
      .append(",\"seq\":").append(seq).append(",\"ts\":").append(ts).append(",\"pad\":\"");
    b.append(PAD, 0, Math.max(0, size - b.length() - 2)).append("\"}");
    return b.toString().getBytes(StandardCharsets.US_ASCII);
  }
  static KafkaProducer<byte[], byte[]> producer(int batch, int linger) {
    Properties p = base(); p.put("acks", "all"); p.put("batch.size", batch); p.put("linger.ms", linger); p.put("buffer.memory", 67108864);
    return new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
  }
  static KafkaConsumer<byte[], byte[]> consumer(boolean committed, String topic, boolean fromEnd) {
    Properties p = base(); p.put("isolation.level", committed ? "read_committed" : "read_uncommitted"); p.put("enable.auto.commit", "false");
    KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    List<TopicPartition> tps = new ArrayList<>(); for (int i = 0; i < PARTS; i++) tps.add(new TopicPartition(topic, i));
    c.assign(tps); if (fromEnd) c.seekToEnd(tps); else c.seekToBeginning(tps);
    for (TopicPartition tp : tps) c.position(tp);
    return c;
  }
  static long committed(Admin a, String group) throws Exception {
    long s = 0; for (OffsetAndMetadata o : a.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values()) if (o != null) s += o.offset();
    return s;
  }
  static void await(String group, long n) throws Exception {
    try (Admin a = Admin.create(base())) {
      long dead = System.currentTimeMillis() + 170000;
      while (committed(a, group) < n) { if (System.currentTimeMillis() > dead) throw new TimeoutException("committed " + committed(a, group) + " of " + n); Thread.sleep(50); }
    }
  }
  static Properties streamsProps(String app, int threads, long cache) {
    Properties p = base();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, app);
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Integer.getInteger("commit", 100));
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
    p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, cache);
    p.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("STATE_DIR"));
    p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    p.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    p.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class.getName());
    p.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class.getName());
    return p;
  }
  static <T> Serde<T> json(Class<T> c) {
    return Serdes.serdeFrom((t, v) -> { try { return v == null ? null : M.writeValueAsBytes(v); } catch (Exception e) { throw new RuntimeException(e); } },
      (t, b) -> { try { return b == null ? null : M.readValue(b, c); } catch (Exception e) { throw new RuntimeException(e); } });
  }
  static final AtomicLong seen = new AtomicLong(); static final AtomicLong firstNs = new AtomicLong();
  static void mark() { if (seen.getAndIncrement() == 0) firstNs.set(System.nanoTime()); }
  static Topology aggTopology(String in, String outT) {
    StreamsBuilder b = new StreamsBuilder();
    b.stream(in, Consumed.with(Serdes.String(), json(In.class))).groupByKey()
      .aggregate(Agg::new, (k, v, a) -> { mark(); a.sum += v.amount; a.count++; a.ts = Math.max(a.ts, v.ts); return a; },
        Materialized.<String, Agg, KeyValueStore<Bytes, byte[]>>as("agg").withKeySerde(Serdes.String()).withValueSerde(json(Agg.class)))
      .toStream().to(outT, Produced.with(Serdes.String(), json(Agg.class)));
    return b.build();
  }
  static void rmrf(Path p) throws Exception { if (Files.exists(p)) try (var s = Files.walk(p)) { for (Path q : s.sorted(Comparator.reverseOrder()).toList()) Files.delete(q); } }
  static double q(long[] a, double p) { return a.length == 0 ? -1 : a[(int) Math.min(a.length - 1, Math.floor(a.length * p))]; }

  // ---------- sub-commands ----------
  public static void main(String[] a) throws Exception {
    switch (a[0]) {
      case "agg": agg(a[1], Long.parseLong(a[2]), Integer.parseInt(a[3]), Long.parseLong(a[4]), Long.parseLong(a[5])); break; // TOPIC N THREADS CACHE OFFSETS
      case "lat": lat(Integer.parseInt(a[1]), Integer.parseInt(a[2]), Integer.parseInt(a[3]), Long.parseLong(a[4])); break; // lat RATE SEC THREADS CACHE
      case "restore-fill": restoreFill(a[1], Long.parseLong(a[2])); break; // TOPIC N
      case "restore": restore(a[1], Long.parseLong(a[2]), Integer.parseInt(a[3])); break; // TOPIC N THREADS
      default: throw new IllegalArgumentException(a[0]);
    }
    System.exit(0);
  }
  static void agg(String in, long n, int threads, long cache, long offsets) throws Exception {
    String app = "agg" + System.currentTimeMillis(); fresh("agg-out");
    double c0 = selfCpu(), b0 = brokerCpu(); long t0 = System.nanoTime();
    KafkaStreams ks = new KafkaStreams(aggTopology(in, "agg-out"), streamsProps(app, threads, cache));
    ks.start(); await(app, offsets);
    double total = (System.nanoTime() - t0) / 1e9, run = (System.nanoTime() - firstNs.get()) / 1e9, c = selfCpu() - c0, b = brokerCpu() - b0; long rss = rssMb();
    ks.close(Duration.ofSeconds(20)); ks.cleanUp();
    Map<String, long[]> last = new HashMap<>(); long outs = 0, wantSum = 0; for (long i = 0; i < n; i++) wantSum += i % 100;
    try (KafkaConsumer<byte[], byte[]> k = consumer(true, "agg-out", false)) {
      int idle = 0; while (idle < 4) { var rs = k.poll(Duration.ofMillis(250)); if (rs.isEmpty()) idle++; else idle = 0;
        for (var rec : rs) { outs++; Agg g = M.readValue(rec.value(), Agg.class); last.put(new String(rec.key()), new long[]{g.sum, g.count}); } } }
    long cnt = 0, sum = 0; for (long[] l : last.values()) { sum += l[0]; cnt += l[1]; }
    out("bench", "streams-agg", "threads", threads, "cacheBytes", cache, "commitMs", Integer.getInteger("commit", 100), "records", n, "keys", last.size(), "secFromFirstRecord", r(run), "secFromStart", r(total), "recPerSec", Math.round(n / run), "cpuSec", r(c), "brokerCpuSec", r(b), "rssMb", rss, "outputRecords", outs, "exact", cnt == n && sum == wantSum);
  }
  static void lat(int rate, int sec, int threads, long cache) throws Exception {
    fresh("lat-in", "lat-out"); String app = "lat" + System.currentTimeMillis();
    KafkaStreams ks = new KafkaStreams(aggTopology("lat-in", "lat-out"), streamsProps(app, threads, cache)); ks.start();
    while (ks.state() != KafkaStreams.State.RUNNING) Thread.sleep(50);
    final int warm = 10; ConcurrentLinkedQueue<Long> lats = new ConcurrentLinkedQueue<>(); AtomicBoolean stop = new AtomicBoolean(); AtomicLong from = new AtomicLong(Long.MAX_VALUE);
    Thread ct = new Thread(() -> { try (KafkaConsumer<byte[], byte[]> c = consumer(true, "lat-out", false)) {
      while (!stop.get()) for (var rec : c.poll(Duration.ofMillis(100))) { long now = System.currentTimeMillis(); Agg g = M.readValue(rec.value(), Agg.class); if (g.ts >= from.get()) lats.add(now - g.ts); }
    } catch (Exception e) { e.printStackTrace(); } }); ct.start(); Thread.sleep(1000);
    double c0 = 0, b0 = 0; long m0 = 0;
    try (KafkaProducer<byte[], byte[]> p = producer(16384, 1)) {
      long start = System.nanoTime(); long total = (long) rate * (warm + sec);
      for (long i = 0; i < total; i++) {
        long due = start + i * 1000000000L / rate; long d; while ((d = due - System.nanoTime()) > 0) Thread.sleep(Math.max(0, d / 1000000), (int) (d % 1000000));
        if (i == (long) rate * warm) { from.set(System.currentTimeMillis()); c0 = selfCpu(); b0 = brokerCpu(); m0 = System.nanoTime(); }
        String k = key((i * 2654435761L >>> 7) % 100000); p.send(new ProducerRecord<>("lat-in", k.getBytes(), value(k, i, System.currentTimeMillis(), 200)));
      }
      p.flush();
    }
    double ms = (System.nanoTime() - m0) / 1e9, c = selfCpu() - c0, b = brokerCpu() - b0;
    Thread.sleep(2000); stop.set(true); ct.join(); ks.close(Duration.ofSeconds(20)); ks.cleanUp();
    long[] l = lats.stream().mapToLong(x -> x).sorted().toArray();
    out("bench", "streams-latency", "rate", rate, "sec", r(ms), "threads", threads, "cacheBytes", cache, "commitMs", Integer.getInteger("commit", 100), "samples", l.length, "p50ms", q(l, .5), "p90ms", q(l, .9), "p99ms", q(l, .99), "maxMs", q(l, 1), "cpuPct", r(100 * c / ms), "brokerCpuPct", r(100 * b / ms), "rssMb", rssMb());
  }
  static Topology tableTopology(String in) {
    StreamsBuilder b = new StreamsBuilder();
    b.table(in, Consumed.with(Serdes.String(), Serdes.ByteArray()), Materialized.<String, byte[], KeyValueStore<Bytes, byte[]>>as("tab"))
      .toStream().foreach((k, v) -> mark());
    return b.build();
  }
  static void restoreFill(String in, long n) throws Exception {
    KafkaStreams ks = new KafkaStreams(tableTopology(in), streamsProps("restore", 2, 10485760)); long t0 = System.nanoTime(); ks.start(); await("restore", n);
    double s = (System.nanoTime() - t0) / 1e9; ks.close(Duration.ofSeconds(30));
    out("bench", "streams-table-fill", "records", n, "secFromStart", r(s), "recPerSec", Math.round(n / s));
  }
  static void restore(String in, long n, int threads) throws Exception {
    rmrf(Path.of(System.getenv("STATE_DIR"), "restore"));
    KafkaStreams ks = new KafkaStreams(tableTopology(in), streamsProps("restore", threads, 10485760));
    AtomicLong restored = new AtomicLong(), t1 = new AtomicLong(), t2 = new AtomicLong(); AtomicInteger open = new AtomicInteger();
    ks.setGlobalStateRestoreListener(new StateRestoreListener() {
      public void onRestoreStart(TopicPartition tp, String s, long a, long b) { t1.compareAndSet(0, System.nanoTime()); open.incrementAndGet(); }
      public void onBatchRestored(TopicPartition tp, String s, long end, long num) { }
      public void onRestoreEnd(TopicPartition tp, String s, long total) { restored.addAndGet(total); t2.set(System.nanoTime()); open.decrementAndGet(); }
    });
    double c0 = selfCpu(), b0 = brokerCpu(); long t0 = System.nanoTime(); ks.start();
    while (!(ks.state() == KafkaStreams.State.RUNNING && restored.get() >= n)) { Thread.sleep(20); if (System.nanoTime() - t0 > 160e9) throw new TimeoutException("restored " + restored.get()); }
    double start2run = (System.nanoTime() - t0) / 1e9, rs = (t2.get() - t1.get()) / 1e9;
    out("bench", "streams-restore", "keys", restored.get(), "threads", threads, "secRestore", r(rs), "keysPerSec", Math.round(restored.get() / rs), "secStartToRunning", r(start2run), "cpuSec", r(selfCpu() - c0), "brokerCpuSec", r(brokerCpu() - b0), "rssMb", rssMb());
    ks.close(Duration.ofSeconds(20));
  }
}
