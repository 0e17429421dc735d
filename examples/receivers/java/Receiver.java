// Receive Bellwire's webhooks with Java's standard library only (Java 17 or newer).
//
//   BELLWIRE_SECRET=whsec_... java examples/receivers/java/Receiver.java 8000

import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final String SECRET = System.getenv("BELLWIRE_SECRET").replaceFirst("^whsec_", "");
    static final byte[] KEY = Base64.getDecoder().decode(SECRET);
    static final long TOLERANCE_SECONDS = 300;
    static final int MAX_BODY_BYTES = 1 << 20;
    // In production, a database table with webhook-id as its key.
    static final Set<String> SEEN = ConcurrentHashMap.newKeySet();

    static boolean isValid(String id, String timestamp, String signatures, byte[] body)
            throws Exception {
        if (id.isEmpty() || !timestamp.matches("[0-9]{1,12}")) return false;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(KEY, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes());
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes();
        boolean matches = false;
        // While a secret is rotated, there are several signatures; one match is enough.
        for (String each : signatures.split(" "))
            matches |= MessageDigest.isEqual(each.getBytes(), expected);
        long age = System.currentTimeMillis() / 1000 - Long.parseLong(timestamp);
        return matches && Math.abs(age) <= TOLERANCE_SECONDS;
    }

    static void handle(HttpExchange exchange) throws IOException {
        try (exchange) {
            // The raw bytes: verify them before parsing.
            byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY_BYTES);
            String id = header(exchange, "id"), signatures = header(exchange, "signature");
            boolean valid = isValid(id, header(exchange, "timestamp"), signatures, body);
            boolean isNew = valid && SEEN.add(id); // a retry has the same id
            exchange.sendResponseHeaders(valid ? 204 : 401, -1);
            if (isNew) System.out.println(id + " " + new String(body, UTF_8)); // work after the response
        } catch (Exception error) {
            throw new IOException(error);
        }
    }

    static String header(HttpExchange exchange, String name) {
        return exchange.getRequestHeaders().getOrDefault("webhook-" + name, List.of("")).get(0);
    }

    public static void main(String[] args) throws IOException {
        int port = args.length > 0 ? Integer.parseInt(args[0]) : 8000;
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", Receiver::handle);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort() + "/");
    }
}
