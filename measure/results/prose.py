"""What the page of the evaluation says besides figures: how to read them, and what each measurement is."""

DEFAULT = "das-block loss+activation"
# What was fitted on a ground truth, which therefore flatters it; by the beginning of its name.
FITTED_ON = {
    "digits": "the rule for λ was fitted on these subsets",
    "cifar2-8": "the rule's number for activations was fitted on these subsets, too",
    "repeats-cifar2-8": "the power of a work's repeats was chosen on these subsets",
}


CONTROL = """## Control: the network before its training

The same estimators with the same works, but with the features of a network whose weights are still random
(`--untrained`; with a LoRA, of the base alone). It shows how much of a ranking belongs to the works and the
architecture, and not to what this model has learnt. It is most of it: a network that has seen no work already tells
which works are close to a picture, and on so few works closeness decides much of what retraining changes. What
training adds is the difference between two columns.
"""
CONTROLLED = ("das", "das-block loss", "das-block activation", DEFAULT)


READING = """# Evaluation

Made by `das results write` from the JSON files beside it. The commands are described in
[operations](../operations.md), the estimators in [method](../method.md).

## How to read this

The question is always the same: had the model been trained without these works, what would be different? Here it is
answered the expensive way, by training again, and the estimators are held against that answer.

- **LDS** (linear datamodeling score, times 100). Models are trained again on random halves of the works. From its
  scores alone an estimator predicts on which of them a picture will fare worse; LDS is the rank correlation of that
  with what the models really lost, mean over pictures. 100 is the right order, 0 is guessing. It judges sums over
  hundreds of works: it does not prove that one named work had influence.
- **A second real retraining** scores less than 100 too, since training depends on its seed: the losses of one seed,
  taken as the prediction of another's (*ceiling*). The truth is a mean over seeds, which a perfect prediction would
  meet with about the square root of that. Both come from the few subsets that were trained twice, and are rough.
- **95 % interval**: bootstrap over subsets. It is about the luck of the subsets, not about other data or models.
- **against das**: the difference to the row `das`, the paper's form with normalisation, from the same run. All rows
  are measured on the same subsets, so what moves one moves the others, and the differences are known better than
  the intervals suggest: theirs are from the same draws of subsets for both. An interval without 0 is a difference
  that the choice of subsets does not explain. With twenty rows one of them may do so by chance.
- **validation** pictures were held out, **generated** ones come from the model itself, as those that a service is
  asked about do.
- **λ** (damping, in units of tr(K)/N) is that of the default rule in every LDS unless a column says otherwise: the
  rule takes no retraining. **regret** is what the best λ of the grid, known only in hindsight, would add; it is
  below 0 where the rule's λ lies between two of the grid and is better.
- **In-sample and not**: the rule for λ was fitted on 8×8 digits, its number for activations on those and on
  *cifar2-8*. That das-block and the probes loss and activation are the default was decided on these two; the
  timesteps of *economical* on digits and CIFAR-2 pictures at 16×16
  (decisions [7](../decisions/0007-damping-by-effective-dimension.md),
  [8](../decisions/0008-what-else-was-tried-on-the-features.md) and [9](../decisions/0009-activations.md)). So the
  results on digits and *cifar2-8* say how well the choices fit.
  *lora-photographs* and *lora-photographs-long* say how well they carry over: no choice was made on them. The LoRA of
  the first knows its works little, that of the second well (decision 9). CLIP is the demo's small model, which has
  seen these photographs: its rows there are flattered. The figures of *cifar2-16* are older than the probe activation
  and have no row of it; *economical* has k = 512 there.

LDS, best λ and λ chosen on half are means over the reporting halves of random halvings of the subsets. Rows that
take no λ have one figure for all three. **Bold**: the method and probes of an index that is built without options
(its k is 1,024). *economical*: three timesteps, k = 1,024 and eight bits a number, as in the preset of that name,
whose probe is activation alone.
"""

GROUPS = """All works of a group (a creator, say) are left out and the model is trained again, with several seeds;
starts and noises are shared, so that the works make the difference. An estimator says how much of a
picture it owes to each group; that is held against what really changed, by rank correlation over groups,
and by whether the group named first is the one whose absence changes most. *sum*, *mean*, *largest*: of
the scores of the group's works; *variance*: the exact rise of the predictive variance when the group
goes. Intervals and leads are from a bootstrap over queries, the same for all rows: they say nothing of
other groups.
"""

COLUMNS = {
    "counterfactual": {
        "label": "removed by",
        "removed": "works removed",
        "queries": "queries",
        "l2": "L2 distance",
        "l2_of_sets": "of each set",
        "clip_similarity": "CLIP similarity",
    },
    "output-function": {
        "function": "output function",
        "pearson": "Pearson",
        "spearman": "Spearman",
        "pairs": "pairs",
        "models": "models",
    },
    "screening": {
        "label": "estimator",
        "embedding": "look-alikes by",
        "candidates": "works scored",
        "recall": "recall of top 20",
        "lds": "LDS, all works",
        "screened_lds": "LDS, look-alikes",
        "lds_lost": "LDS lost",
    },
}
ABOUT = {
    "counterfactual": "The works ranked highest for a set of generated pictures are removed, the model is"
    " trained again and the same seeds are generated. The further the pictures move (L2,"
    " pixels in [-1, 1]) and the less they look like before (CLIP cosine, times 100), the"
    " more those works mattered; *random* says how far they move anyway. Every set is one"
    " training again, so a difference smaller than those between sets means nothing.",
    "output-function": "The model is trained again without random works. Does the change of a generated"
    " picture go with the change of its loss, or with the change of the prediction on it,"
    " which is what DAS estimates? In the paper: 0.257 and 0.485.",
    "screening": "Only the works that look most like a query are scored. Recall: the part of the 20"
    " works ranked highest among all that is still there. LDS: the others' scores set to 0."
    " It is over all subsets and has no halves, so it can differ a little from the table of"
    " LDS.",
}

PICTURES = {
    "counterfactual": "Generated pictures, and the same seeds from models trained without the works of each estimator"
}
