package kryocheck;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.*;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.*;

/**
 * One process for many messages: reads each with the real Kryo and tells what it read.
 *
 * <p>Request: 'r', 'x' or 'j', length as int, the message; 'f' flushes the replies. Reply to 'r': a byte (1 = read to its last
 * byte), the FNV-1a hash of the text of the object, the hash of the bytes that Kryo writes for it again. Reply to 'x': length and
 * text, for a person; to 'j': length and the object as JSON ({@link Main#dump}), empty when it was not read to its last byte.
 */
final class Serve {
  private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  private final Kryo kryo = Main.kryo(false);
  private final Output output = new Output(4096, -1);
  private final Map<Class<?>, Field[]> fields = new HashMap<>();
  private final StringBuilder text = new StringBuilder();
  private final char[] hex = "0123456789abcdef".toCharArray();

  static void run() throws IOException {
    new Serve().loop(new DataInputStream(new BufferedInputStream(System.in, 1 << 16)),
        new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16)));
  }

  private void loop(DataInputStream in, DataOutputStream out) throws IOException {
    for (int op = in.read(); op >= 0; op = in.read()) {
      if (op == 'f') { out.flush(); continue; }
      byte[] message = new byte[in.readInt()];
      in.readFully(message);
      text.setLength(0);
      boolean whole = false;
      String json = "";
      byte[] again = new byte[0];
      try {
        Input input = new Input(message);
        Object root = kryo.readClassAndObject(input);
        whole = input.available() == 0 && input.position() == message.length;
        if (op == 'j' && whole) json = GSON.toJson(Main.dump(root, Object.class));
        show(root);
        output.clear();
        kryo.writeClassAndObject(output, root);
        again = output.toBytes();
      } catch (Exception e) {
        whole = false;
        text.append("\n").append(e);
      }
      byte[] shown = text.toString().getBytes(StandardCharsets.UTF_8);
      if (op == 'r') {
        out.writeByte(whole ? 1 : 0);
        out.writeLong(fnv(shown));
        out.writeLong(fnv(again));
      } else if (op == 'j') {
        byte[] all = json.getBytes(StandardCharsets.UTF_8);
        out.writeInt(all.length);
        out.write(all);
      } else {
        byte[] all = (text + "\nwhole: " + whole + "\nagain: " + HexFormat.of().formatHex(again)).getBytes(StandardCharsets.UTF_8);
        out.writeInt(all.length);
        out.write(all);
      }
    }
    out.flush();
  }

  private static long fnv(byte[] bytes) {
    long hash = 0xcbf29ce484222325L;
    for (byte b : bytes) hash = (hash ^ (b & 0xff)) * 0x100000001b3L;
    return hash;
  }

  /** Fields of every level in the order of the wire. */
  private Field[] of(Class<?> c) {
    return fields.computeIfAbsent(c, key -> Main.fields(key).stream().filter(f -> !Modifier.isTransient(f.getModifiers()))
        .sorted(Comparator.comparing(Serve::wire)).toArray(Field[]::new));
  }

  private static String wire(Field f) { return f.getDeclaringClass().getSimpleName() + "." + f.getName(); }

  private String shown(Object x) throws IllegalAccessException {
    int start = text.length();
    show(x);
    String s = text.substring(start);
    text.setLength(start);
    return s;
  }

  private void sorted(char kind, List<String> all) {
    Collections.sort(all);
    text.append(kind).append(all.size()).append('[');
    all.forEach(text::append);
    text.append(']');
  }

  /** The same text as `sample_tests.rs` makes of the value that was written. */
  private void show(Object x) throws IllegalAccessException {
    if (x == null) text.append("-;");
    else if (x instanceof String s) text.append('s').append(s.length()).append(':').append(s).append(';');
    else if (x instanceof Boolean b) text.append(b ? "t;" : "f;");
    else if (x instanceof Integer || x instanceof Long) text.append('i').append(x).append(';');
    else if (x instanceof Enum<?> e) text.append(e.getDeclaringClass().getSimpleName()).append('.').append(e.name()).append(';');
    else if (x instanceof byte[] b) {
      text.append('b');
      for (byte v : b) text.append(hex[v >> 4 & 15]).append(hex[v & 15]);
      text.append(';');
    } else if (x instanceof EnumSet<?> set) {
      EnumSet<?> all = set.isEmpty() ? EnumSet.complementOf((EnumSet) set) : set;
      text.append('E').append(all.iterator().next().getDeclaringClass().getSimpleName()).append(set.size()).append('[');
      for (Object o : set) show(o);
      text.append(']');
    } else if (x instanceof List<?> list) {
      text.append('L').append(list.size()).append('[');
      for (Object o : list) show(o);
      text.append(']');
    } else if (x instanceof Set<?> set) {
      List<String> all = new ArrayList<>(set.size());
      for (Object o : set) all.add(shown(o));
      sorted('S', all);
    } else if (x instanceof Map<?, ?> map) {
      List<String> all = new ArrayList<>(map.size());
      for (Map.Entry<?, ?> e : map.entrySet()) all.add(shown(e.getKey()) + shown(e.getValue()));
      sorted('M', all);
    } else {
      text.append(x.getClass().getSimpleName()).append('(');
      for (Field f : of(x.getClass())) {
        text.append(wire(f)).append('=');
        show(f.get(x));
      }
      text.append(')');
    }
  }
}
