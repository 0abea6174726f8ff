"""Readers of training sets: one module for each convention that people's training tools use.

All of them fill one `Collection` (das.trainingsets.collection), and `das.works.read_works` is the door to them.
"""
