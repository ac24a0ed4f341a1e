"""Why a delivery failed, as a verdict with its evidence.

Reading order: `taxonomy` (the words that every part of the house agrees on), `verdict` (what is told), `classify` (the
vote of its layers), then the layers: `rules` (status codes and wordings, from `rulefile`, in the language of `dialect`,
found by `patterns`), `providers` (who runs a server), `model` (the learnt one). `schemes` says our causes in other
people's words, `lint` finds rules that can do nothing.
"""
