"""The two doors at which an autoscaler that follows a published number asks for it: an HPA's and KEDA's."""
