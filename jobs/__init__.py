"""What the web service and its workers share: settings, the job protocol, the queue and the blob store."""
