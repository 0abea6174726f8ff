"""A build by many: shards of works go over a queue to build workers, who leave what they compute beside the index."""
