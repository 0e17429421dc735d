"""The push channel: browsers (Web Push), Android and others (FCM), and Apple's devices (APNs)."""
