package kryocheck;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.Serializer;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import com.esotericsoftware.kryo.serializers.CompatibleFieldSerializer;
import com.esotericsoftware.kryo.serializers.EnumNameSerializer;
import com.esotericsoftware.kryo.serializers.FieldSerializer;
import com.google.gson.*;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.file.*;
import java.time.Instant;
import java.util.*;
import org.objenesis.strategy.StdInstantiatorStrategy;

/** gen cases.json vectors.json: serialise every case with real Kryo. read vectors.json got.json: decode foreign bytes, compare. serve: {@link Serve}. */
public final class Main {
  static final class RawMessage extends Serializer<Stubs.UnitProgress> {
    { setAcceptsNull(true); }
    public void write(Kryo k, Output o, Stubs.UnitProgress v) {
      if (v == null) { o.writeByte(0); return; }
      o.writeInt(v.message.length + 1, true);
      o.writeBytes(v.message);
      o.flush();
    }
    public Stubs.UnitProgress read(Kryo k, Input in, Class<Stubs.UnitProgress> t) {
      int n = in.readInt(true);
      if (n == 0) return null;
      Stubs.UnitProgress u = new Stubs.UnitProgress();
      u.message = in.readBytes(n - 1);
      return u;
    }
  }

  static Kryo kryo(boolean refs) {
    Kryo k = new Kryo();
    k.setInstantiatorStrategy(new Kryo.DefaultInstantiatorStrategy(new StdInstantiatorStrategy()));
    k.setDefaultSerializer(CompatibleFieldSerializer.class);
    k.getFieldSerializerConfig().setCachedFieldNameStrategy(FieldSerializer.CachedFieldNameStrategy.EXTENDED);
    k.setRegistrationRequired(true);
    k.setReferences(refs);
    if (!refs) k.addDefaultSerializer(Enum.class, EnumNameSerializer.class);
    k.register(byte[].class, 10);
    k.register(char[].class, 11);
    k.register(String[].class, 18);
    k.register(Date.class, 23);
    k.register(EnumSet.class, 25);
    k.register(Collections.EMPTY_LIST.getClass(), 29);
    k.register(Collections.singletonList(null).getClass(), 32);
    k.register(ArrayList.class, 35);
    k.register(HashMap.class, 36);
    k.register(TreeMap.class, 39);
    k.register(Optional.class, 46);
    k.register(HashSet.class, 49);
    k.register(LinkedHashMap.class, 50);
    k.register(LinkedList.class, 78);
    k.register(Instant.class, 7235);
    for (Map.Entry<Class<?>, Integer> e : Stubs.IDS.entrySet()) {
      if (e.getKey() == Stubs.UnitProgress.class) k.register(e.getKey(), new RawMessage(), e.getValue());
      else k.register(e.getKey(), (int) e.getValue());
    }
    return k;
  }

  static Class<?> cls(String n) throws Exception { return Class.forName("kryocheck.Stubs$" + n); }

  static List<Field> fields(Class<?> c) {
    List<Field> out = new ArrayList<>();
    for (; c != null && c != Object.class; c = c.getSuperclass())
      for (Field f : c.getDeclaredFields())
        if (!Modifier.isStatic(f.getModifiers())) { f.setAccessible(true); out.add(f); }
    return out;
  }

  static final Map<String, Object> labels = new HashMap<>();

  @SuppressWarnings({"unchecked", "rawtypes"})
  static Object build(JsonElement j, Class<?> t) throws Exception {
    if (j == null || j.isJsonNull()) return null;
    if (j.isJsonPrimitive()) {
      JsonPrimitive p = j.getAsJsonPrimitive();
      if (t.isEnum()) return Enum.valueOf((Class) t, p.getAsString());
      if (t == int.class || t == Integer.class) return p.getAsInt();
      if (t == long.class || t == Long.class) return p.getAsLong();
      if (t == short.class) return p.getAsShort();
      if (t == byte.class) return p.getAsByte();
      if (t == float.class) return p.getAsFloat();
      if (t == double.class) return p.getAsDouble();
      if (t == char.class) return p.getAsString().charAt(0);
      if (t == char[].class) return p.getAsString().toCharArray();
      if (p.isBoolean()) return p.getAsBoolean();
      return new String(p.getAsString());
    }
    JsonObject o = j.getAsJsonObject();
    if (o.has("@same")) return labels.get(o.get("@same").getAsString());
    String n = o.get("@").getAsString();
    JsonElement v = o.get("v");
    switch (n) {
      case "bytes": return HexFormat.of().parseHex(v.getAsString());
      case "String[]": { List<String> l = new ArrayList<>(); for (JsonElement e : v.getAsJsonArray()) l.add(e.isJsonNull() ? null : e.getAsString()); return l.toArray(new String[0]); }
      case "Integer": return v.getAsInt();
      case "Long": return v.getAsLong();
      case "Boolean": return v.getAsBoolean();
      case "Optional": return Optional.ofNullable(build(v, Object.class));
      case "Instant": return Instant.ofEpochSecond(o.get("s").getAsLong(), o.get("n").getAsLong());
      case "Date": return new Date(v.getAsLong());
      case "EnumSet": { EnumSet s = EnumSet.noneOf((Class) cls(o.get("of").getAsString())); for (JsonElement e : v.getAsJsonArray()) s.add(Enum.valueOf((Class) cls(o.get("of").getAsString()), e.getAsString())); return s; }
      case "EmptyList": return Collections.EMPTY_LIST;
      case "SingletonList": return Collections.singletonList(build(v.getAsJsonArray().get(0), Object.class));
      case "ArrayList": case "LinkedList": case "HashSet": {
        Collection c = n.equals("ArrayList") ? new ArrayList<>() : n.equals("LinkedList") ? new LinkedList<>() : new HashSet<>();
        for (JsonElement e : v.getAsJsonArray()) c.add(build(e, Object.class));
        return c;
      }
      case "HashMap": case "LinkedHashMap": case "TreeMap": {
        Map m = n.equals("HashMap") ? new HashMap<>() : n.equals("TreeMap") ? new TreeMap<>() : new LinkedHashMap<>();
        for (JsonElement e : v.getAsJsonArray()) m.put(build(e.getAsJsonArray().get(0), Object.class), build(e.getAsJsonArray().get(1), Object.class));
        return m;
      }
      default:
    }
    Class<?> c = cls(n);
    if (c.isEnum()) return Enum.valueOf((Class) c, v.getAsString());
    Object x = new StdInstantiatorStrategy().newInstantiatorOf(c).newInstance();
    if (o.has("#")) labels.put(o.get("#").getAsString(), x);
    for (Field f : fields(c)) {
      String key = o.has(f.getDeclaringClass().getSimpleName() + "." + f.getName()) ? f.getDeclaringClass().getSimpleName() + "." + f.getName() : f.getName();
      if (o.has(key) && !o.get(key).isJsonNull()) f.set(x, build(o.get(key), f.getType()));
    }
    return x;
  }

  /** Tree form of an object, in iteration order; t = declared type of the place it stands in. */
  static JsonElement dump(Object x, Class<?> t) throws Exception {
    if (x == null) return JsonNull.INSTANCE;
    if (x instanceof String s) return new JsonPrimitive(s);
    if (x instanceof Character ch) return new JsonPrimitive(String.valueOf(ch));
    if (x instanceof char[] ca) return new JsonPrimitive(new String(ca));
    boolean typed = t.isPrimitive() || t == x.getClass();
    JsonObject o = new JsonObject();
    if (x instanceof Number || x instanceof Boolean) {
      JsonPrimitive p = x instanceof Boolean b ? new JsonPrimitive(b) : new JsonPrimitive((Number) x);
      if (typed) return p;
      o.addProperty("@", x.getClass().getSimpleName()); o.add("v", p); return o;
    }
    if (x instanceof Enum<?> e) {
      if (t == e.getDeclaringClass() && Modifier.isFinal(t.getModifiers())) return new JsonPrimitive(e.name());
      o.addProperty("@", e.getDeclaringClass().getSimpleName()); o.addProperty("v", e.name()); return o;
    }
    if (x instanceof byte[] b) { o.addProperty("@", "bytes"); o.addProperty("v", HexFormat.of().formatHex(b)); return o; }
    if (x instanceof Optional<?> p) { o.addProperty("@", "Optional"); o.add("v", dump(p.orElse(null), Object.class)); return o; }
    if (x instanceof Instant i) { o.addProperty("@", "Instant"); o.addProperty("s", i.getEpochSecond()); o.addProperty("n", i.getNano()); return o; }
    if (x instanceof Date d) { o.addProperty("@", "Date"); o.addProperty("v", d.getTime()); return o; }
    JsonArray a = new JsonArray();
    if (x instanceof String[] sa) { for (String s : sa) a.add(s); o.addProperty("@", "String[]"); o.add("v", a); return o; }
    if (x instanceof Collection<?> c) {
      if (x instanceof EnumSet<?> es) { o.addProperty("@", "EnumSet"); o.addProperty("of", (es.isEmpty() ? EnumSet.complementOf((EnumSet) es) : es).iterator().next().getClass().getSimpleName()); for (Object e : es) a.add(((Enum<?>) e).name()); }
      else { o.addProperty("@", x == Collections.EMPTY_LIST ? "EmptyList" : x.getClass().getSimpleName()); for (Object e : c) a.add(dump(e, Object.class)); }
      o.add("v", a); return o;
    }
    if (x instanceof Map<?, ?> m) {
      for (Map.Entry<?, ?> e : m.entrySet()) { JsonArray kv = new JsonArray(); kv.add(dump(e.getKey(), Object.class)); kv.add(dump(e.getValue(), Object.class)); a.add(kv); }
      o.addProperty("@", x.getClass().getSimpleName()); o.add("v", a); return o;
    }
    o.addProperty("@", x.getClass().getSimpleName());
    for (Field f : fields(x.getClass()))
      if (!Modifier.isTransient(f.getModifiers())) o.add(f.getDeclaringClass().getSimpleName() + "." + f.getName(), dump(f.get(x), f.getType()));
    return o;
  }

  static String typeName(Kryo k, Class<?> t) {
    if (t.isPrimitive() || t.getName().startsWith("java.lang.") && t != Object.class || t.isArray()) return t.getSimpleName();
    return (k.isFinal(t) ? t.isEnum() ? "enum " : "final " : "open ") + t.getSimpleName();
  }

  static JsonArray schema(Kryo k) {
    JsonArray out = new JsonArray();
    for (Map.Entry<Class<?>, Integer> e : Stubs.IDS.entrySet()) {
      JsonObject c = new JsonObject();
      c.addProperty("class", e.getKey().getSimpleName());
      c.addProperty("id", e.getValue());
      JsonArray l = new JsonArray();
      if (e.getKey().isEnum()) { for (Object v : e.getKey().getEnumConstants()) l.add(((Enum<?>) v).name()); c.add("enum", l); }
      else {
        for (Field f : fields(e.getKey())) if (!Modifier.isTransient(f.getModifiers())) { JsonArray p = new JsonArray(); p.add(f.getDeclaringClass().getSimpleName() + "." + f.getName()); p.add(typeName(k, f.getType())); l.add(p); }
        c.add("fields", l);
      }
      out.add(c);
    }
    return out;
  }

  public static void main(String[] a) throws Exception {
    if (a[0].equals("serve")) { Serve.run(); return; }
    Gson g = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    JsonObject in = JsonParser.parseString(Files.readString(Path.of(a[1]))).getAsJsonObject();
    if (a[0].equals("gen")) {
      StringBuilder sb = new StringBuilder("{\"schema\":[\n");
      JsonArray s = schema(kryo(false));
      for (int i = 0; i < s.size(); i++) sb.append(g.toJson(s.get(i))).append(i + 1 < s.size() ? ",\n" : "\n],\"vectors\":[\n");
      JsonArray cs = in.getAsJsonArray("cases");
      for (int i = 0; i < cs.size(); i++) {
        JsonObject c = cs.get(i).getAsJsonObject();
        JsonObject v = new JsonObject();
        v.add("name", c.get("name")); v.add("profile", c.get("profile")); if (c.has("note")) v.add("note", c.get("note"));
        Object x = build(c.get("value"), Object.class);
        boolean same = c.get("value").toString().contains("@same");
        v.add("value", same ? c.get("value") : dump(x, Object.class));
        Output o = new Output(4096, -1);
        kryo(c.get("profile").getAsString().equals("v1")).writeClassAndObject(o, x);
        v.addProperty("hex", HexFormat.of().formatHex(o.toBytes()));
        sb.append(g.toJson(v)).append(i + 1 < cs.size() ? ",\n" : "\n]}\n");
      }
      Files.writeString(Path.of(a[2]), sb.toString());
      return;
    }
    JsonObject got = JsonParser.parseString(Files.readString(Path.of(a[2]))).getAsJsonObject();
    int bad = 0, n = 0;
    for (JsonElement e : in.getAsJsonArray("vectors")) {
      JsonObject v = e.getAsJsonObject();
      String name = v.get("name").getAsString();
      boolean refs = v.get("profile").getAsString().equals("v1");
      String want = g.toJson(dump(build(v.get("value"), Object.class), Object.class));
      if (!got.has(name)) { System.out.println("MISSING " + name); bad++; continue; }
      for (Map.Entry<String, JsonElement> form : got.getAsJsonObject(name).entrySet()) {
        n++;
        try {
          Input i = new Input(HexFormat.of().parseHex(form.getValue().getAsString()));
          Object x = kryo(refs).readClassAndObject(i);
          String have = g.toJson(dump(x, Object.class));
          if (!have.equals(want) || i.available() > 0) { bad++; System.out.println("DIFF " + name + "/" + form.getKey() + "\n want " + want + "\n have " + have + " left " + i.available()); }
        } catch (Exception ex) { bad++; System.out.println("FAIL " + name + "/" + form.getKey() + ": " + ex); }
      }
    }
    System.out.println(n + " byte strings read by Kryo 4.0.3, " + bad + " wrong");
    System.exit(bad == 0 ? 0 : 1);
  }
}
