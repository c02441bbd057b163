/** What the outbox needs in a database: functions, and one row with the secret that only their owner (and capture) may read. */
export const OUTBOX_DDL: readonly string[] = [
  // max_bytes: the driver takes batches of 1,000,000 bytes, of which capture needs a few thousand for its headers.
  // The two pads of HMAC-SHA-256 (RFC 2104), made here once: what is not signed with them was not emitted by these functions.
  `CREATE TABLE IF NOT EXISTS headwater.outbox_key (
     only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
     inner_pad bytea NOT NULL, outer_pad bytea NOT NULL,
     max_bytes int NOT NULL DEFAULT 990000 CHECK (max_bytes > 0))`,
  `REVOKE ALL ON headwater.outbox_key FROM PUBLIC`,
  `WITH secret AS MATERIALIZED (
     SELECT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex') AS bytes)
   INSERT INTO headwater.outbox_key (inner_pad, outer_pad)
   SELECT decode(string_agg(lpad(to_hex(get_byte(bytes, i) # 54), 2, '0'), '' ORDER BY i) || repeat('36', 32), 'hex'),
          decode(string_agg(lpad(to_hex(get_byte(bytes, i) # 92), 2, '0'), '' ORDER BY i) || repeat('5c', 32), 'hex')
     FROM secret, generate_series(0, 31) i
   ON CONFLICT DO NOTHING`,
  // Transactional messages are signed with their transaction's id: copied into another transaction they are worth nothing.
  `CREATE OR REPLACE FUNCTION headwater.emit_signed(transactional boolean, prefix text, payload text) RETURNS pg_lsn
     LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
     DECLARE
       pads headwater.outbox_key;
       body bytea := convert_to(payload, 'UTF8');
       content bytea;
       lsn pg_lsn;
       owner_xid text := CASE WHEN transactional THEN pg_current_xact_id()::xid::text ELSE '-' END;
     BEGIN
       SELECT * INTO STRICT pads FROM headwater.outbox_key;
       content := convert_to('v1.' || encode(sha256(pads.outer_pad || sha256(
         pads.inner_pad || convert_to(prefix || ':' || owner_xid || ':', 'UTF8') || body)), 'hex') || ' ', 'UTF8') || body;
       IF NOT transactional AND current_setting('server_version_num')::int >= 170000 THEN
         -- No commit flushes it: without this a crash of the server forgets what its caller took for said.
         EXECUTE 'SELECT pg_logical_emit_message(false, $1, $2, true)' INTO lsn USING prefix, content;
         RETURN lsn;
       END IF;
       RETURN pg_logical_emit_message(transactional, prefix, content);
     END $$`,
  `REVOKE EXECUTE ON FUNCTION headwater.emit_signed(boolean, text, text) FROM PUBLIC`,
  `CREATE OR REPLACE FUNCTION headwater.emit_checked(
     transactional boolean, topic text, key text, value text, headers jsonb) RETURNS pg_lsn
     LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
     DECLARE
       fields jsonb := coalesce(headers, '{}');
       size int := coalesce(octet_length(convert_to(key, 'UTF8')), 0) + coalesce(octet_length(convert_to(value, 'UTF8')), 0)
         + octet_length(convert_to(fields::text, 'UTF8'));
       most int := (SELECT max_bytes FROM headwater.outbox_key);
     BEGIN
       IF size > most THEN
         RAISE EXCEPTION USING ERRCODE = 'HW001', MESSAGE = format(
           'the message for topic "%s" has %s bytes, the limit is %s. Make it smaller, or raise headwater.outbox_key.max_bytes together with max.message.bytes of the topic.',
           topic, size, most);
       END IF;
       IF topic IS NULL OR topic !~ '^[A-Za-z0-9._-]{1,249}$' OR topic LIKE 'headwater.cdc.%' THEN
         RAISE EXCEPTION USING ERRCODE = 'HW002', MESSAGE = format(
           '"%s" is no topic for messages. Give a name of letters, digits, ".", "_" and "-", not below headwater.cdc.', topic);
       END IF;
       IF jsonb_typeof(fields) <> 'object' OR EXISTS (SELECT FROM jsonb_each(
            CASE jsonb_typeof(fields) WHEN 'object' THEN fields ELSE '{}' END) f
          WHERE jsonb_typeof(f.value) <> 'string' OR f.key IN ('hw_op', 'hw_lsn', 'hw_seq', 'hw_tx', 'hw_ts', 'hw_table', 'hw_unchanged')) THEN
         RAISE EXCEPTION USING ERRCODE = 'HW002', MESSAGE =
           'headers must be an object of texts without the names that capture sets (hw_op, hw_lsn, hw_seq, hw_tx, hw_ts, hw_table, hw_unchanged). Rename them.';
       END IF;
       RETURN headwater.emit_signed(transactional, 'headwater',
         json_build_object('topic', topic, 'key', key, 'value', value, 'headers', fields)::text);
     END $$`,
  `REVOKE EXECUTE ON FUNCTION headwater.emit_checked(boolean, text, text, text, jsonb) FROM PUBLIC`,
  // The outbox without a table: the message lives in the WAL only, is captured with the transaction, and vanishes with a rollback.
  `CREATE OR REPLACE FUNCTION headwater.emit(topic text, key text, value text, headers jsonb) RETURNS pg_lsn
     LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
     $$ SELECT headwater.emit_checked(true, $1, $2, $3, $4) $$`,
  `REVOKE EXECUTE ON FUNCTION headwater.emit(text, text, text, jsonb) FROM PUBLIC`,
  // Published whatever becomes of the transaction.
  `CREATE OR REPLACE FUNCTION headwater.emit_now(topic text, key text, value text, headers jsonb) RETURNS pg_lsn
     LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
     $$ SELECT headwater.emit_checked(false, $1, $2, $3, $4) $$`,
  `REVOKE EXECUTE ON FUNCTION headwater.emit_now(text, text, text, jsonb) FROM PUBLIC`,
  // First in a transaction: headers of all its records.
  `CREATE OR REPLACE FUNCTION headwater.context(fields jsonb) RETURNS pg_lsn
     LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
     BEGIN
       IF fields IS NULL OR jsonb_typeof(fields) <> 'object' OR octet_length(convert_to(fields::text, 'UTF8')) > 1024
          OR EXISTS (SELECT FROM jsonb_each(CASE jsonb_typeof(fields) WHEN 'object' THEN fields ELSE '{}' END) f
            WHERE jsonb_typeof(f.value) <> 'string' OR f.key !~ '^(traceparent|tracestate|baggage|hw_[a-z0-9_]+)$'
              OR f.key IN ('hw_op', 'hw_lsn', 'hw_seq', 'hw_tx', 'hw_ts', 'hw_table', 'hw_unchanged')) THEN
         RAISE EXCEPTION USING ERRCODE = 'HW002', MESSAGE =
           'a context is an object of texts named traceparent, tracestate, baggage or hw_… (not hw_op, hw_lsn, hw_seq, hw_tx, hw_ts, hw_table, hw_unchanged), 1024 bytes at most. Leave the rest out.';
       END IF;
       RETURN headwater.emit_signed(true, 'headwater.ctx', fields::text);
     END $$`,
  `REVOKE EXECUTE ON FUNCTION headwater.context(jsonb) FROM PUBLIC`,
];
