"""Write iris.csv, the table beside this file: 150 flowers of three species, and four lengths in cm of each.

Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936, in the
public domain; the numbers are those of scikit-learn's copy, which this script needs.
"""

from pathlib import Path

from sklearn.datasets import load_iris

iris = load_iris()
lines = ["sepal_length,sepal_width,petal_length,petal_width,species"]
lines += [
    ",".join([*(f"{length:g}" for length in lengths), str(iris.target_names[species])])
    for lengths, species in zip(iris.data, iris.target, strict=True)
]
Path(__file__).with_name("iris.csv").write_text("\n".join(lines) + "\n", "utf-8")
